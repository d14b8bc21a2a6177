# SPDX-License-Identifier: GPL-2.0-only
"""Dirty logging: write-protect so that the next write is seen, and large pages again when it is over."""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.role import Role, role_level
from cython.cimports.shadowmmu.engine.arena.state import (
    LEVEL_BITS,
    KvmPtr,
    ManualProtect,
    MemSlotPtr,
    ShadowPagePtr,
    gfn_t,
    p_spte,
    p_u64,
    pages_per_hpage,
    sptep_to_sp,
    u64,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_remote_tlbs
from cython.cimports.shadowmmu.engine.entries.huge import max_mapping_level
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_rmap
from cython.cimports.shadowmmu.engine.memory.pte_list import PteListIter, pte_list_first, pte_list_next
from cython.cimports.shadowmmu.engine.memory.rmap import drop_spte, rmap_write_protect, slot_write_protect_gfn
from cython.cimports.shadowmmu.engine.slots.split import try_split_huge_pages


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def heads_of(slot: MemSlotPtr, level: cython.int) -> u64:
    """Number of rmap heads of a level."""
    shift: cython.int = LEVEL_BITS * (level - 1)
    return ((slot.base_gfn + slot.npages - 1) >> shift) - (slot.base_gfn >> shift) + 1


def slot_remove_write_access(kvm: KvmPtr, slot: MemSlotPtr, start_level: cython.int) -> cython.void:
    """kvm_mmu_slot_remove_write_access, slot_rmap_write_protect: W goes, MMU-writable stays, so that the fast path can give it back."""
    emit(kvm, -1, Event.SLOT_REMOVE_WRITE, slot.id, start_level)
    level: cython.int
    i: u64
    for level in range(start_level, 4):
        for i in range(heads_of(slot, level)):
            rmap_write_protect(kvm, cython.address(slot.rmap[level - 1][i]), False)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def collapsible(kvm: KvmPtr, slot: MemSlotPtr, sptep: p_spte) -> cython.bint:
    """A direct page's entry that could be part of a larger mapping. An indirect page follows the guest's size.

    A page that begins below the slot, or in another one, maps what no larger page of this slot can hold: its gfn has no
    place in the slot's arrays (Linux 6.1.177).
    """
    sp: ShadowPagePtr = sptep_to_sp(kvm, sptep)
    if not sp.role & Role.DIRECT or sp.gfn - slot.base_gfn >= slot.npages:
        return False
    return role_level(sp.role) < max_mapping_level(kvm, slot, sp.gfn, 3)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def zap_collapsible_in(kvm: KvmPtr, slot: MemSlotPtr, head: p_u64) -> cython.bint:
    """kvm_mmu_zap_collapsible_spte: drop those of one rmap; each removal ends a walk, so it begins again."""
    any_zapped: cython.bint = False
    it: PteListIter
    sptep: p_spte = pte_list_first(head[0], cython.address(it))
    while sptep != cython.NULL:
        if collapsible(kvm, slot, sptep):
            drop_spte(kvm, sptep)
            any_zapped = True
            sptep = pte_list_first(head[0], cython.address(it))
        else:
            sptep = pte_list_next(cython.address(it))
    return any_zapped


def zap_collapsible_sptes(kvm: KvmPtr, slot: MemSlotPtr) -> cython.void:
    """kvm_mmu_zap_collapsible_sptes, kvm_rmap_zap_collapsible_sptes: logging is off, let the next faults map large pages again."""
    emit(kvm, -1, Event.ZAP_COLLAPSIBLE, slot.id)
    flush: cython.bint = False
    level: cython.int
    i: u64
    for level in range(1, 3):
        for i in range(heads_of(slot, level)):
            if zap_collapsible_in(kvm, slot, cython.address(slot.rmap[level - 1][i])):
                flush = True
    if flush:
        flush_remote_tlbs(kvm)


def write_protect_pt_masked(kvm: KvmPtr, slot: MemSlotPtr, offset: u64, mask: u64) -> cython.void:
    """kvm_mmu_write_protect_pt_masked: protect again the 4K pages whose bits were read from the log."""
    emit(kvm, -1, Event.WRITE_PROTECT_PT_MASKED, slot.id, offset, mask)
    bit: cython.int
    for bit in range(64):
        if mask >> bit & 1:
            rmap_write_protect(kvm, gfn_to_rmap(slot, slot.base_gfn + offset + bit, 1), False)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def protect_huge_pages(kvm: KvmPtr, slot: MemSlotPtr, start: gfn_t, end: gfn_t) -> cython.void:
    """Huge pages were left writable when the log began: those of the pages `start` to `end`, at most two, are protected now."""
    mask: u64 = pages_per_hpage(2) - 1
    try_split_huge_pages(kvm, slot, start, end + 1)
    slot_write_protect_gfn(kvm, slot, start, 2)
    if start + mask >> LEVEL_BITS != end + mask >> LEVEL_BITS:
        slot_write_protect_gfn(kvm, slot, end, 2)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def enable_log_dirty_pt_masked(kvm: KvmPtr, slot: MemSlotPtr, offset: u64, mask: u64) -> cython.void:
    """kvm_arch_mmu_enable_log_dirty_pt_masked: the pages whose bits went from the log are to be seen when written again."""
    if kvm.manual_dirty_log_protect & ManualProtect.INITIALLY_SET:
        first: u64 = 0
        last: u64 = 63
        while not mask >> first & 1:
            first += 1
        while not mask >> last & 1:
            last -= 1
        protect_huge_pages(kvm, slot, slot.base_gfn + offset + first, slot.base_gfn + offset + last)
    write_protect_pt_masked(kvm, slot, offset, mask)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def clear_word(kvm: KvmPtr, slot: MemSlotPtr, word: u64, mask: u64) -> cython.bint:
    """Take the bits of `mask` out of one word of the log. True: some were set, a flush is due."""
    mask &= slot.dirty_bitmap[word]
    slot.dirty_bitmap[word] &= ~mask
    if mask:
        enable_log_dirty_pt_masked(kvm, slot, word * 64, mask)
    return mask != 0


def get_dirty_log(kvm: KvmPtr, slot: MemSlotPtr, into: p_u64) -> cython.void:
    """KVM_GET_DIRTY_LOG: hand out the bitmap, and clear it unless that is left to KVM_CLEAR_DIRTY_LOG.

    In the kernel: kvm_arch_flush_remote_tlbs_memslot.
    """
    flush: cython.bint = False
    word: u64
    for word in range((slot.npages + 63) // 64):
        into[word] = slot.dirty_bitmap[word]
        if not kvm.manual_dirty_log_protect and clear_word(kvm, slot, word, into[word]):
            flush = True
    if flush:
        flush_remote_tlbs(kvm)


def clear_dirty_log(kvm: KvmPtr, slot: MemSlotPtr, first_page: u64, pages: u64, bitmap: p_u64) -> cython.void:
    """KVM_CLEAR_DIRTY_LOG: clear the bits that are set in `bitmap`, whose bit 0 is of `first_page`, a multiple of 64."""
    flush: cython.bint = False
    i: u64
    for i in range((pages + 63) // 64):
        if clear_word(kvm, slot, first_page // 64 + i, bitmap[i]):
            flush = True
    if flush:
        flush_remote_tlbs(kvm)
