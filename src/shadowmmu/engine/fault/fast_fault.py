# SPDX-License-Identifier: GPL-2.0-only
"""The lockless fast path of direct MMUs: give back a right that only dirty logging or access tracking took."""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.spte import is_access_track, is_last, is_present, is_writable, restore_acc_track
from cython.cimports.shadowmmu.engine.arena.state import KvmPtr, KvmVcpuPtr, PfRet, SlotFlag, host_pa, p_spte, spte_t, u64
from cython.cimports.shadowmmu.engine.entries.leaf import PageFaultPtr
from cython.cimports.shadowmmu.engine.entries.shadow_walk import ShadowWalk, walk_init, walk_next, walk_okay
from cython.cimports.shadowmmu.engine.memory.memslots import mark_page_dirty
from cython.cimports.shadowmmu.x86.pte import Pte


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def can_be_fast(kvm: KvmPtr, fault: PageFaultPtr) -> cython.bint:
    """page_fault_can_be_fast: neither an MMIO mark nor an executability fault; a protected write, or access tracking."""
    if fault.rsvd or (fault.fetch and fault.present):
        return False
    return (fault.present and fault.write) or (not fault.present and kvm.ept and not kvm.ept_ad)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_allowed(kvm: KvmPtr, fault: PageFaultPtr, spte: spte_t) -> cython.bint:
    """is_access_allowed: the entry permits the access already."""
    if fault.fetch:
        return (spte & kvm.masks.x) != 0 if kvm.masks.x else (spte & kvm.masks.nx) == 0
    if fault.write:
        return is_writable(spte)
    return (spte & Pte.PRESENT) != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def last_sptep(vcpu: KvmVcpuPtr, fault: PageFaultPtr, level: cython.p_int) -> p_spte:
    """fast_pf_get_last_sptep: the last entry on the path of the fault, with its level."""
    it: ShadowWalk
    found: p_spte = cython.NULL
    walk_init(cython.address(it), vcpu, vcpu.mmu.root.hpa, fault.addr)
    while walk_okay(cython.address(it)):
        found = it.sptep
        level[0] = it.level
        walk_next(cython.address(it))
    return found


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fix_spte(kvm: KvmPtr, fault: PageFaultPtr, sptep: p_spte, level: cython.int) -> cython.int:
    """fast_pf_fix_direct_spte: restore what may be restored; INVALID hands the fault to the slow path."""
    old: spte_t = sptep[0]
    made: spte_t = old
    if is_access_track(kvm, old):
        made = restore_acc_track(kvm, old)
    if fault.write and old & kvm.masks.mmu_writable:
        made |= Pte.WRITABLE
        # A huge entry must not become writable while dirty pages are logged: the slow path splits it.
        if level > 1 and fault.slot != cython.NULL and fault.slot.flags & SlotFlag.SLOT_LOG_DIRTY:
            return PfRet.RET_PF_INVALID
    if made == old or not is_allowed(kvm, fault, made):
        return PfRet.RET_PF_INVALID
    sptep[0] = made
    if is_writable(made) and not is_writable(old):
        mark_page_dirty(fault.slot, fault.gfn)
    return PfRet.RET_PF_FIXED


def fast_page_fault(vcpu: KvmVcpuPtr, fault: PageFaultPtr) -> cython.int:
    """RET_PF_FIXED or SPURIOUS if no lock was needed, else INVALID."""
    kvm: KvmPtr = vcpu.kvm
    if not can_be_fast(kvm, fault):
        return PfRet.RET_PF_INVALID
    level: cython.int = 0
    sptep: p_spte = last_sptep(vcpu, fault, cython.address(level))
    result: cython.int = PfRet.RET_PF_INVALID
    old: spte_t = sptep[0] if sptep != cython.NULL else 0
    if is_present(old) and is_last(old, level):
        if is_allowed(kvm, fault, old):
            result = PfRet.RET_PF_SPURIOUS
        else:
            result = fix_spte(kvm, fault, sptep, level)
    if result != PfRet.RET_PF_INVALID:
        vcpu.stat.pf_fast += 1
    outcome: u64 = (1 if result == PfRet.RET_PF_SPURIOUS else 0) | (2 if result == PfRet.RET_PF_FIXED else 0)
    at: u64 = host_pa(kvm, sptep) if sptep != cython.NULL else 0
    now: u64 = sptep[0] if sptep != cython.NULL else 0
    emit(kvm, vcpu.id, Event.FAST_PAGE_FAULT, fault.addr, fault.error_code, at, old, now, outcome)
    return result
