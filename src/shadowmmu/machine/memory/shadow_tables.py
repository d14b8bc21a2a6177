# SPDX-License-Identifier: GPL-2.0-only
"""The CPU's own walk through shadow tables, by the same rules for each entry as any walk (`hardware.walk`)."""

import cython
from cython.cimports.libc.stdint import int64_t, uint64_t
from cython.cimports.shadowmmu.engine.arena.state import Hpa, KvmVcpuPtr, p_u64
from cython.cimports.shadowmmu.engine.face.host_access import frame_memory
from cython.cimports.shadowmmu.engine.face.vcpu import Vcpu
from cython.cimports.shadowmmu.hardware.walk import Paging, Step, use_entry
from cython.cimports.shadowmmu.x86.pferr import Pferr
from cython.cimports.shadowmmu.x86.pte import Pte

from shadowmmu.hardware.walk import Features, paging
from shadowmmu.machine.real_controls import on_shadow_tables

ADDRESS = cython.declare(uint64_t, 0x000FFFFFFFFFF000)
NOTHING = cython.declare(uint64_t, 1 << 30)
ALL = cython.declare(uint64_t, 0xE)  # rights


@cython.final
@cython.cclass
class ShadowTables:
    """Those that one vCPU runs on. A and D are set on the way."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.features = Features(maxphyaddr=vcpu.vm.host_maxphyaddr)

    def walk(self, gva: uint64_t, access: uint64_t):
        """Host physical address, or the complement (~) of the error code of a #PF, which is an exit."""
        place: uint64_t = 0
        code: int64_t = self.find(gva, access, cython.address(place))
        return place if code == FOUND else ~code

    @cython.cfunc
    def paging(self) -> Paging:
        """The mode of the registers that the hardware really has; they seldom change."""
        now: KvmVcpuPtr = self.vcpu.vcpu
        if self.mode is None or now.cr0 != self.cr0 or now.cr4 != self.cr4 or now.efer != self.efer:
            self.cr0, self.cr4, self.efer = now.cr0, now.cr4, now.efer
            self.mode = paging(*on_shadow_tables(self.vcpu), self.features)
        return self.mode

    @cython.cfunc
    def find(self, gva: uint64_t, access: uint64_t, place: cython.pointer(uint64_t)) -> int64_t:
        """FOUND, or the error code."""
        vcpu: KvmVcpuPtr = self.vcpu.vcpu
        root: uint64_t = vcpu.mmu.root.hpa
        kinds: uint64_t = access & (Pferr.WRITE | Pferr.USER | Pferr.FETCH)
        if root == Hpa.INVALID_PAGE:
            return kinds
        mode: Paging = self.paging()
        code: uint64_t = kinds & (Pferr.WRITE | Pferr.USER | mode.fetch_code)
        table: uint64_t = root & ADDRESS
        if mode.levels == 3:
            pdpte: p_u64 = entry_at(vcpu, (root & 0xFFFFFFE0) + (gva >> 27 & 0x18))
            table = 0 if pdpte == cython.NULL else pdpte[0]
            if not table & Pte.PRESENT or table & mode.pdpte_reserved:
                return code | (Pferr.PRESENT | Pferr.RSVD if table & Pte.PRESENT else 0)
            table &= ADDRESS
        used: p_u64[MOST_LEVELS]
        number: cython.int = 0
        rights: uint64_t = ALL
        leaf: cython.bint = False
        step: Step = None
        while not leaf:
            step = mode.steps[number]
            used[number] = entry_at(vcpu, table + (gva >> step.shift & step.mask) * 8)
            fault: uint64_t = NOTHING
            if used[number] != cython.NULL:
                fault, table, rights, leaf = use_entry(mode, step, used[number][0], rights)
            if fault:
                return code | (fault & ~NOTHING)
            number += 1
        lifts_smap: cython.bint = vcpu.ac and not access & Pferr.IMPLICIT
        if not mode.permits(rights, kinds, lifts_smap):
            return code | Pferr.PRESENT
        mark(used, number, kinds)
        place[0] = table | (gva & ((cython.cast(uint64_t, 1) << step.shift) - 1))
        return FOUND


@cython.cfunc
def entry_at(vcpu: KvmVcpuPtr, hpa: uint64_t) -> p_u64:
    """NULL: there is no memory."""
    return cython.cast(p_u64, frame_memory(vcpu.kvm, hpa, 8))


@cython.cfunc
def mark(used: cython.pointer(p_u64), number: cython.int, access: uint64_t):
    """Set A in the entries, and D in the last one for a write."""
    i: cython.int
    for i in range(number):
        used[i][0] |= Pte.ACCESSED
    if access & Pferr.WRITE:
        used[number - 1][0] |= Pte.DIRTY
