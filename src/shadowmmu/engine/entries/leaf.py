"""Setting a leaf: replace what is there, write the entry, enter the rmap, and map some neighbours ahead of need."""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.role import Access, Role, role_access, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_large, is_present, spte_pfn
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    PREFETCH,
    HvaFlag,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    MemSlotPtr,
    PfRet,
    ShadowPagePtr,
    SlotFlag,
    gfn_t,
    host_pa,
    p_spte,
    pfn_t,
    spte_index,
    spte_t,
    sptep_to_sp,
    to_shadow_page,
    u64,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_remote_tlbs
from cython.cimports.shadowmmu.engine.entries.make_spte import make_spte
from cython.cimports.shadowmmu.engine.entries.mmio import mark_mmio_spte
from cython.cimports.shadowmmu.engine.guest.walker import GuestWalkerPtr, gpte_access, gpte_gfn, protect_clean_gpte
from cython.cimports.shadowmmu.engine.memory.host_memory import host_writable
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot, host_mapping
from cython.cimports.shadowmmu.engine.memory.rmap import drop_spte, rmap_add, set_access, sp_gfn_of, spte_update
from cython.cimports.shadowmmu.engine.pages.pages import drop_parent_pte
from cython.cimports.shadowmmu.engine.shadow.sync import prefetch_invalid_gpte


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def drop_other(kvm: KvmPtr, sptep: p_spte, level: cython.int, pfn: pfn_t) -> cython.int:
    """Clear a present entry that is not a leaf of `pfn`. 0: it stays (was mapped), 1: dropped, a flush is due."""
    if level > 1 and not is_large(sptep[0]):
        drop_parent_pte(kvm, to_shadow_page(kvm, sptep[0]), sptep)
        return 1
    if pfn != spte_pfn(sptep[0]):
        drop_spte(kvm, sptep)
        return 1
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_mmio(vcpu: KvmVcpuPtr, sptep: p_spte, level: cython.int, gfn: gfn_t, access: cython.int) -> cython.int:
    """Put an MMIO mark; a present entry goes first, or its rmap entry would be lost (CVE-2026-23401)."""
    if is_present(sptep[0]):
        drop_other(vcpu.kvm, sptep, level, Pfn.PFN_NOSLOT)
        flush_remote_tlbs(vcpu.kvm)
    vcpu.stat.pf_mmio_spte_created += 1
    mark_mmio_spte(vcpu, sptep, gfn, access)
    return PfRet.RET_PF_EMULATE


def set_spte(
    vcpu: KvmVcpuPtr,
    slot: MemSlotPtr,
    sptep: p_spte,
    access: cython.int,
    gfn: gfn_t,
    pfn: pfn_t,
    fault: PageFaultPtr,
) -> cython.int:
    """mmu_set_spte: map `gfn` at `sptep`. `fault` is NULL while prefetching, which has only writable frames."""
    kvm: KvmPtr = vcpu.kvm
    sp: ShadowPagePtr = sptep_to_sp(kvm, sptep)
    level: cython.int = role_level(sp.role)
    prefetch: cython.bint = fault == cython.NULL
    host_writable: cython.bint = prefetch or fault.map_writable
    if pfn == Pfn.PFN_NOSLOT:
        return set_mmio(vcpu, sptep, level, gfn, access)
    flush: cython.bint = False
    was_rmapped: cython.bint = False
    if is_present(sptep[0]):
        flush = drop_other(kvm, sptep, level, pfn)
        was_rmapped = not flush
    made: spte_t = 0
    wrprot: cython.bint = make_spte(
        kvm, vcpu.mmu, sp, slot, access, gfn, pfn, sptep[0], prefetch, True, host_writable, cython.address(made)
    )
    result: cython.int = PfRet.RET_PF_FIXED
    if sptep[0] == made:
        result = PfRet.RET_PF_SPURIOUS
    else:
        if spte_update(kvm, sptep, made):
            flush = True
        emit(kvm, vcpu.id, Event.KVM_MMU_SET_SPTE, gfn, made, host_pa(kvm, sptep), level)
    if wrprot and not prefetch and fault.write:
        result = PfRet.RET_PF_EMULATE
    if flush:
        flush_remote_tlbs(kvm)
    if was_rmapped:
        set_access(kvm, sp, spte_index(sptep), access)
    else:
        rmap_add(kvm, slot, sptep, gfn, access)
    return result


# --- prefetching: the seven neighbours in an aligned group of eight


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def prefetch_slot(vcpu: KvmVcpuPtr, gfn: gfn_t, no_dirty_log: cython.bint) -> MemSlotPtr:
    """gfn_to_memslot_dirty_bitmap: a slot that may be mapped without a fault, or NULL."""
    slot: MemSlotPtr = gfn_to_memslot(vcpu.kvm, vcpu.smm, gfn)
    if slot == cython.NULL or slot.flags & SlotFlag.SLOT_INVALID:
        return cython.NULL
    if no_dirty_log and slot.flags & SlotFlag.SLOT_LOG_DIRTY:
        return cython.NULL
    return slot


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def mapped_for_write(vcpu: KvmVcpuPtr, slot: MemSlotPtr, gfn: gfn_t) -> cython.bint:
    """The host has a writable frame for `gfn` already: nothing has to be waited for."""
    entry: u64 = host_mapping(vcpu.kvm, slot, gfn)
    return not slot.flags & SlotFlag.SLOT_READONLY and entry & HvaFlag.HVA_PRESENT and host_writable(entry)


def prefetch_gpte(vcpu: KvmVcpuPtr, sptep: p_spte, gpte: u64, no_dirty_log: cython.bint) -> cython.bint:
    """FNAME(prefetch_gpte): map what a guest entry says, if that needs nobody's help. False: it does."""
    mmu: KvmMmuPtr = vcpu.mmu
    if prefetch_invalid_gpte(vcpu, sptep, gpte):
        return False
    gfn: gfn_t = gpte_gfn(mmu.format, gpte)
    access: cython.int = role_access(sptep_to_sp(vcpu.kvm, sptep).role) & gpte_access(mmu.format, gpte)
    access = protect_clean_gpte(mmu, access, gpte)
    slot: MemSlotPtr = prefetch_slot(vcpu, gfn, no_dirty_log and (access & Access.WRITE) != 0)
    if slot == cython.NULL or not mapped_for_write(vcpu, slot, gfn):
        return False
    set_spte(vcpu, slot, sptep, access, gfn, host_mapping(vcpu.kvm, slot, gfn) >> PAGE_SHIFT, cython.NULL)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def prefetch_run(vcpu: KvmVcpuPtr, sp: ShadowPagePtr, start: cython.int, end: cython.int) -> cython.bint:
    """direct_pte_prefetch_many: map absent entries [start, end) of a direct page; False ends the prefetching."""
    access: cython.int = role_access(sp.role)
    gfn: gfn_t = sp_gfn_of(sp, start)
    slot: MemSlotPtr = prefetch_slot(vcpu, gfn, (access & Access.WRITE) != 0)
    if slot == cython.NULL or gfn + (end - start) > slot.base_gfn + slot.npages:
        return False
    i: cython.int = start
    while i < end and mapped_for_write(vcpu, slot, gfn):
        set_spte(vcpu, slot, cython.address(sp.spt[i]), access, gfn, host_mapping(vcpu.kvm, slot, gfn) >> PAGE_SHIFT, cython.NULL)
        i += 1
        gfn += 1
    return i > start


def direct_pte_prefetch(vcpu: KvmVcpuPtr, sptep: p_spte) -> cython.void:
    """Prefetch around an entry of a direct level-1 page; needs A bits, to tell used from prefetched."""
    sp: ShadowPagePtr = sptep_to_sp(vcpu.kvm, sptep)
    if sp.role & Role.AD_DISABLED or role_level(sp.role) > 1 or vcpu.kvm.mmu_invalidate_in_progress:
        return
    first: cython.int = spte_index(sptep) & ~(PREFETCH - 1)
    start: cython.int = -1
    i: cython.int
    for i in range(first, first + PREFETCH):
        if is_present(sp.spt[i]) or cython.address(sp.spt[i]) == sptep:
            if start >= 0 and not prefetch_run(vcpu, sp, start, i):
                return
            start = -1
        elif start < 0:
            start = i
    if start >= 0:
        prefetch_run(vcpu, sp, start, first + PREFETCH)


def pte_prefetch(vcpu: KvmVcpuPtr, walker: GuestWalkerPtr, sptep: p_spte) -> cython.void:
    """FNAME(pte_prefetch): map neighbours as the guest entries say that were read with the faulting one."""
    sp: ShadowPagePtr = sptep_to_sp(vcpu.kvm, sptep)
    if role_level(sp.role) > 1 or vcpu.kvm.mmu_invalidate_in_progress:
        return
    if sp.role & Role.DIRECT:
        direct_pte_prefetch(vcpu, sptep)
        return
    first: cython.int = spte_index(sptep) & ~(PREFETCH - 1)
    i: cython.int
    for i in range(PREFETCH):
        at: p_spte = cython.address(sp.spt[first + i])
        if at == sptep or is_present(at[0]):
            continue
        if not prefetch_gpte(vcpu, at, walker.prefetch_ptes[i], True):
            return
