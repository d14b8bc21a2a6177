# SPDX-License-Identifier: GPL-2.0-only
"""The control registers that the hardware really runs with, while the guest believes in its own."""

import cython
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.shadowmmu.engine.arena.state import KvmVcpuPtr, p_u64
from cython.cimports.shadowmmu.engine.face.host_access import frame_memory
from cython.cimports.shadowmmu.engine.face.vcpu import Vcpu
from cython.cimports.shadowmmu.engine.guest.mmu import root_level
from cython.cimports.shadowmmu.x86.control import Cr0, Cr4, Efer
from cython.cimports.shadowmmu.x86.pte import Pte

from shadowmmu.machine.seam import Controls, CpuError

NESTED_LEVELS = cython.declare(cython.int, 4)


def real_controls(vcpu: Vcpu):
    """What the hardware runs with on the root that the vCPU has, of shadow tables or nested ones."""
    found: ControlRegisters
    level: cython.int = 3 if not vcpu.vcpu.efer & Efer.LMA else 5 if vcpu.vcpu.cr4 & Cr4.LA57 else 4
    if not vcpu.vcpu.kvm.tdp and root_level(vcpu.vcpu.mmu) != level:
        raise CpuError(
            f"the engine gives a root of level {root_level(vcpu.vcpu.mmu)} where the hardware walks {level}; report this as a bug"
        )
    find_controls(vcpu.vcpu, cython.address(found))
    return Controls(found.cr0, found.cr3, found.cr4, found.efer, found.ncr3)


def on_shadow_tables(vcpu: Vcpu):
    """CR0, CR4 and EFER with shadow paging."""
    found: ControlRegisters
    shadow_controls(vcpu.vcpu, cython.address(found))
    return found.cr0, found.cr4, found.efer


def find_controls(vcpu: KvmVcpuPtr, into: ControlsPtr) -> cython.void:
    root: uint64_t = vcpu.mmu.root.hpa
    if not vcpu.kvm.tdp:
        shadow_controls(vcpu, into)
        into.cr3, into.ncr3 = root, 0
        return
    # The CPU walks the guest's tables as the guest's registers say.
    into.cr0, into.cr3 = vcpu.cr0 & ~cython.cast(uint64_t, Cr0.CD | Cr0.NW), vcpu.cr3
    into.cr4, into.efer = vcpu.cr4 | Cr4.MCE, vcpu.efer | Efer.SVME
    into.ncr3 = root if root_level(vcpu.mmu) == NESTED_LEVELS else below_five(vcpu, root)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def below_five(vcpu: KvmVcpuPtr, root: uint64_t) -> uint64_t:
    """This CPU walks four levels of nested tables. Its addresses have not more bits, so of a fifth only the first entry can be used,
    and the step through it is taken here. An entry that leads nowhere has an empty table behind it: itself, whose others are unused.
    """
    first: p_u64 = cython.cast(p_u64, frame_memory(vcpu.kvm, root, 8))
    if not first[0] & Pte.PRESENT:
        return root
    first[0] |= Pte.ACCESSED
    return first[0] & cython.cast(uint64_t, 0x000FFFFFFFFFF000)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def shadow_controls(vcpu: KvmVcpuPtr, into: ControlsPtr) -> cython.void:
    """As KVM does: paging, WP, PAE and NXE always; caches never off; no SMEP or SMAP on a guest without paging, whose
    shadow maps everything for users; long mode only once it is active. PCIDs are the guest's alone: this CPU has none."""
    cr4: uint64_t = vcpu.cr4
    efer: uint64_t = vcpu.efer
    if not vcpu.cr0 & Cr0.PG:
        cr4 &= ~cython.cast(uint64_t, Cr4.SMEP | Cr4.SMAP | Cr4.PKE)
    if not efer & Efer.LMA:
        efer &= ~cython.cast(uint64_t, Efer.LME)
    into.cr0 = (vcpu.cr0 | Cr0.PG | Cr0.WP) & ~cython.cast(uint64_t, Cr0.CD | Cr0.NW)
    into.cr4 = (cr4 & ~cython.cast(uint64_t, Cr4.PCIDE)) | Cr4.PAE | Cr4.MCE
    into.efer = efer | Efer.NXE | Efer.SVME
