# SPDX-License-Identifier: GPL-2.0-only
"""Mapping ahead of need: the seven neighbours of a fault, in an aligned group of eight entries."""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Access, Role, role_access, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    PREFETCH,
    HvaFlag,
    KvmMmuPtr,
    KvmVcpuPtr,
    MemSlotPtr,
    ShadowPagePtr,
    SlotFlag,
    gfn_t,
    p_spte,
    spte_index,
    sptep_to_sp,
    u64,
)
from cython.cimports.shadowmmu.engine.entries.leaf import set_spte
from cython.cimports.shadowmmu.engine.guest.walker import (
    GuestWalkerPtr,
    accessed_bit,
    gpte_access,
    gpte_gfn,
    gpte_present,
    have_ad,
    protect_clean_gpte,
)
from cython.cimports.shadowmmu.engine.memory.host_memory import host_writable
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot, host_mapping
from cython.cimports.shadowmmu.engine.memory.rmap import drop_spte, sp_gfn_of
from cython.cimports.shadowmmu.x86.reserved import is_rsvd


def prefetch_invalid_gpte(vcpu: KvmVcpuPtr, sptep: p_spte, gpte: u64) -> cython.bint:
    """FNAME(prefetch_invalid_gpte): an entry not present, without A, or with reserved bits cannot be mapped ahead of
    a fault; what is there is dropped."""
    mmu: KvmMmuPtr = vcpu.mmu
    usable: cython.bint = gpte_present(mmu.format, gpte)
    if have_ad(mmu) and not gpte & accessed_bit(mmu.format):
        usable = False
    if usable and not is_rsvd(cython.address(mmu.guest_rsvd), gpte, 1):
        return False
    drop_spte(vcpu.kvm, sptep)
    return True


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
    """__direct_pte_prefetch: prefetch around an entry of a direct level-1 page; needs A bits, to tell used from prefetched."""
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
