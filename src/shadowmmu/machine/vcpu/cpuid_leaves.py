# SPDX-License-Identifier: GPL-2.0-only
"""What CPUID gives of one vCPU, for the loop and for the CPU's hook: the leaves that `cpuid` has put together, and what of them follows
the vCPU's state."""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.shadowmmu.x86.control import Cr4

FEATURES = cython.declare(uint32_t, 1)
EXTENDED_FEATURES = cython.declare(uint32_t, 0x80000001)


def find_leaf(
    leaves: LeavesPtr, number: uint32_t, subleaf: uint32_t, cr4: uint64_t, apic_on: cython.bint, into: CpuidLeafPtr
) -> cython.bint:
    """False: it is not there, and all zeroes. OSXSAVE is what CR4 says, and an APIC that is off is none."""
    i: cython.int
    for i in range(leaves.count):
        leaf: CpuidLeafPtr = cython.address(leaves.leaf[i])
        if leaf.number == number and (leaf.all or leaf.subleaf == subleaf):
            into[0] = leaf[0]
            if leaf.echoes:
                into.ecx |= subleaf & 0xFF
            if number == FEATURES and cr4 & Cr4.OSXSAVE:
                into.ecx |= OSXSAVE_BIT
            if number in (FEATURES, EXTENDED_FEATURES) and not apic_on:
                into.edx &= ~cython.cast(uint32_t, APIC_BIT)
            return True
    return False


@cython.final
@cython.cclass
class CpuidLeaves:
    """`rows`: (leaf, subleaf or None for all others, whether ECX has the subleaf's low byte, (EAX, EBX, ECX, EDX))."""

    def __init__(self, rows: object) -> None:
        leaf: CpuidLeafPtr
        if len(rows) > MOST_LEAVES:
            raise ValueError(f"{len(rows)} leaves of CPUID, more than {MOST_LEAVES}")
        for number, subleaf, echoes, registers in rows:
            leaf = cython.address(self.leaves.leaf[self.leaves.count])
            leaf.number, leaf.all, leaf.echoes = number, subleaf is None, echoes
            leaf.subleaf = 0 if subleaf is None else subleaf
            leaf.eax, leaf.ebx, leaf.ecx, leaf.edx = registers
            self.leaves.count += 1

    def read(self, number: uint32_t, subleaf: uint32_t, cr4: uint64_t, apic_on: cython.bint):
        """EAX, EBX, ECX, EDX; None: there is no such leaf."""
        leaf: CpuidLeaf
        if not find_leaf(cython.address(self.leaves), number, subleaf, cr4, apic_on, cython.address(leaf)):
            return None
        return leaf.eax, leaf.ebx, leaf.ecx, leaf.edx
