# SPDX-License-Identifier: GPL-2.0-only
"""The host's side: user memory, its page table, and the MMU notifier.

`hva_map` is the host's own page table of the memory that memslots map: frame, present, writable, mapping level.
A page that was given back reads as zeroes through one shared frame, which a write replaces. Before the host
changes a mapping, every shadow of it goes, and `mmu_invalidate_seq` tells faults in flight to retry.
Ranges are host user pages [start, end).

Inline in the .pxd, since they run in every fault: `host_writable`, `fault_in_host_page`.
"""

import cython
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.shadowmmu.engine.arena.state import (
    ADDRESS_SPACES,
    MAX_SLOTS,
    PAGE_SHIFT,
    PAGE_SIZE,
    HvaFlag,
    KvmPtr,
    MemSlotPtr,
    frame_pfn,
    gfn_t,
    p_u8,
    pages_per_hpage,
    pfn_memory,
    u64,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_remote_tlbs
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_rmap, hva_entry, set_hva_entry
from cython.cimports.shadowmmu.engine.memory.rmap import age_rmap, zap_all_rmap_sptes


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def for_each_rmap(kvm: KvmPtr, slot: MemSlotPtr, start: u64, end: u64, act: rmap_handler_t) -> cython.bint:
    """kvm_handle_gfn_range: the mappings, of every size, of the part of the range that lies in the slot; True if `act` says so once."""
    first: u64 = start if start > slot.hva else slot.hva
    last: u64 = end if end < slot.hva + slot.npages else slot.hva + slot.npages
    any_done: cython.bint = False
    page: u64
    level: cython.int
    for page in range(first, last):
        gfn: gfn_t = slot.base_gfn + page - slot.hva
        for level in range(1, 4):
            if act(kvm, gfn_to_rmap(slot, gfn, level)):
                any_done = True
    return any_done


def unmap_in_slot(kvm: KvmPtr, slot: MemSlotPtr, start: u64, end: u64) -> cython.bint:
    """kvm_unmap_gfn_range, kvm_zap_rmap: zap the mappings of a part of a slot; True if there was one."""
    return for_each_rmap(kvm, slot, start, end, zap_all_rmap_sptes)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def handle_hva_range(kvm: KvmPtr, start: u64, end: u64, act: rmap_handler_t) -> cython.bint:
    """kvm_handle_hva_range: the same of every slot that the range is in."""
    any_done: cython.bint = False
    as_id: cython.int
    i: cython.int
    for as_id in range(ADDRESS_SPACES):
        for i in range(MAX_SLOTS):
            slot: MemSlotPtr = cython.address(kvm.slots[as_id][i])
            if slot.npages and start < slot.hva + slot.npages and slot.hva < end and for_each_rmap(kvm, slot, start, end, act):
                any_done = True
    return any_done


def unmap_hva_range(kvm: KvmPtr, start: u64, end: u64) -> cython.void:
    """invalidate_range_start and _end in one: faults that looked the page up before must retry (mmu_invalidate_seq)."""
    flush: cython.bint = handle_hva_range(kvm, start, end, zap_all_rmap_sptes)
    kvm.mmu_invalidate_seq += 1
    if flush:
        flush_remote_tlbs(kvm)


def age_hva_range(kvm: KvmPtr, start: u64, end: u64) -> cython.bint:
    """kvm_mmu_notifier_clear_young, kvm_age_gfn: the host looks which of its pages are in use; True if one was."""
    return handle_hva_range(kvm, start, end, age_rmap)


def discard_hva_range(kvm: KvmPtr, start: u64, end: u64) -> cython.void:
    """madvise(MADV_DONTNEED): the pages are given back, the next touch finds zeroes."""
    unmap_hva_range(kvm, start, end)
    split_ends(kvm, start, end)
    page: u64
    for page in range(start, end):
        drop_host_page(kvm, page)


def protect_hva_range(kvm: KvmPtr, start: u64, end: u64, writable: cython.bint) -> cython.void:
    """mprotect: the host's right to write the pages changes. A private huge page becomes writable only by a write."""
    unmap_hva_range(kvm, start, end)
    split_ends(kvm, start, end)
    page: u64
    for page in range(start, end):
        if writable:
            set_hva_entry(
                kvm, page, hva_entry(kvm, page) | HvaFlag.HVA_WRITABLE | (HvaFlag.HVA_CLEAN if is_huge(hva_entry(kvm, page)) else 0)
            )
        else:
            set_hva_entry(kvm, page, hva_entry(kvm, page) & ~cython.cast(u64, HvaFlag.HVA_WRITABLE))


# --- huge pages


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def level_of(entry: u64) -> cython.int:
    return (entry & HvaFlag.HVA_LEVEL_MASK) >> HvaFlag.HVA_LEVEL_SHIFT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_huge(entry: u64) -> cython.bint:
    return level_of(entry) > 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_levels(kvm: KvmPtr, start: u64, end: u64, level: cython.int) -> cython.void:
    page: u64
    for page in range(start, end):
        set_hva_entry(kvm, page, (hva_entry(kvm, page) & ~cython.cast(u64, HvaFlag.HVA_LEVEL_MASK)) | level << HvaFlag.HVA_LEVEL_SHIFT)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def split_at(kvm: KvmPtr, border: u64) -> cython.void:
    """A huge page that a change goes only part of the way into becomes 4K pages: what is left of it is huge no more."""
    if border == kvm.nhva:
        return
    size: u64 = pages_per_hpage(level_of(hva_entry(kvm, border)))
    first: u64 = border & ~(size - 1)
    if border != first:
        set_levels(kvm, first, first + size, 1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def split_ends(kvm: KvmPtr, start: u64, end: u64) -> cython.void:
    """Before user pages [start, end) change. A range without a page changes nothing."""
    if start < end:
        split_at(kvm, start)
        split_at(kvm, end)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_one_page(kvm: KvmPtr, first: u64, size: u64) -> cython.bint:
    """User pages [first, first + size) have frames in a row, aligned as they are, of their own and with the same rights."""
    but_level: u64 = ~cython.cast(u64, HvaFlag.HVA_LEVEL_MASK)
    head: u64 = hva_entry(kvm, first) & but_level
    good: cython.bint = head & HvaFlag.HVA_PRESENT and not head & HvaFlag.HVA_ZERO and not (head >> PAGE_SHIFT) & (size - 1)
    page: u64 = 0
    while good and page < size:
        good = hva_entry(kvm, first + page) & but_level == head + (page << PAGE_SHIFT)
        page += 1
    return good


def back_by_level(kvm: KvmPtr, start: u64, end: u64, level: cython.int) -> cython.bint:
    """The host maps user pages [start, end) by pages of `level`. False, and nothing changes: one of these cannot be."""
    size: u64 = pages_per_hpage(level)
    first: u64 = start
    while level > 1 and first < end:
        if not is_one_page(kvm, first, size):
            return False
        first += size
    split_ends(kvm, start, end)
    set_levels(kvm, start, end, level)
    return True


# --- the host's own page faults


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def make_huge_writable(kvm: KvmPtr, hva_page: u64) -> cython.void:
    """A write to a clean huge page: the frame stays, and the whole page, which has one entry, is writable."""
    size: u64 = pages_per_hpage(level_of(hva_entry(kvm, hva_page)))
    first: u64 = hva_page & ~(size - 1)
    page: u64
    for page in range(first, first + size):
        set_hva_entry(kvm, page, hva_entry(kvm, page) & ~cython.cast(u64, HvaFlag.HVA_CLEAN))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def zero_frame(kvm: KvmPtr) -> u64:
    """Index of the frame of zeroes that absent pages share: the first behind user memory."""
    return kvm.user_base + kvm.nhva


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def give_frame(kvm: KvmPtr, hva_page: u64, entry: u64) -> u64:
    """Map a user page to a zeroed frame of its own; without a spare frame the mapping stays as it is."""
    if not kvm.user_free_count:
        return entry
    frame: u64 = kvm.user_free[kvm.user_free_head]
    kvm.user_free_head = (kvm.user_free_head + 1) % kvm.user_frames
    kvm.user_free_count -= 1
    memset(kvm.frames + (frame << PAGE_SHIFT), 0, PAGE_SIZE)
    entry &= HvaFlag.HVA_WRITABLE | HvaFlag.HVA_LEVEL_MASK
    set_hva_entry(kvm, hva_page, frame_pfn(kvm, frame) << PAGE_SHIFT | entry | HvaFlag.HVA_PRESENT)
    return hva_entry(kvm, hva_page)


def map_host_page(kvm: KvmPtr, hva_page: u64, write: cython.bint) -> u64:
    """get_user_pages: the mapping after a host access. A read of an absent page maps the shared zeroes; a write
    gives the page a frame, and drops shadows of the zeroes first."""
    entry: u64 = hva_entry(kvm, hva_page)
    if entry & HvaFlag.HVA_PRESENT and not (write and entry & HvaFlag.HVA_NO_WRITE_YET):
        return entry
    if entry & HvaFlag.HVA_CLEAN:
        if entry & HvaFlag.HVA_WRITABLE:
            make_huge_writable(kvm, hva_page)
        return hva_entry(kvm, hva_page)
    if write and entry & HvaFlag.HVA_WRITABLE:
        if entry & HvaFlag.HVA_ZERO:
            unmap_hva_range(kvm, hva_page, hva_page + 1)
        return give_frame(kvm, hva_page, entry)
    entry &= HvaFlag.HVA_WRITABLE | HvaFlag.HVA_LEVEL_MASK
    entry |= frame_pfn(kvm, zero_frame(kvm)) << PAGE_SHIFT | HvaFlag.HVA_PRESENT | HvaFlag.HVA_ZERO
    set_hva_entry(kvm, hva_page, entry)
    return entry


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def drop_host_page(kvm: KvmPtr, hva_page: u64) -> cython.void:
    """Unmap a user page, and give its frame back."""
    entry: u64 = hva_entry(kvm, hva_page)
    set_hva_entry(kvm, hva_page, (entry & HvaFlag.HVA_WRITABLE) | 1 << HvaFlag.HVA_LEVEL_SHIFT)
    if not entry & HvaFlag.HVA_PRESENT or entry & HvaFlag.HVA_ZERO:
        return
    free_frame(kvm, pfn_memory(kvm, entry >> PAGE_SHIFT))


def move_host_page(kvm: KvmPtr, hva_page: u64) -> cython.void:
    """Migration: a page of its own gets another frame, with what is in it. Without a spare frame nothing happens."""
    entry: u64 = hva_entry(kvm, hva_page)
    if not kvm.user_free_count or not entry & HvaFlag.HVA_PRESENT or entry & HvaFlag.HVA_ZERO:
        return
    unmap_hva_range(kvm, hva_page, hva_page + 1)
    split_ends(kvm, hva_page, hva_page + 1)
    content: p_u8 = pfn_memory(kvm, entry >> PAGE_SHIFT)
    moved: u64 = give_frame(kvm, hva_page, hva_entry(kvm, hva_page))
    memcpy(pfn_memory(kvm, moved >> PAGE_SHIFT), content, PAGE_SIZE)
    free_frame(kvm, content)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free_frame(kvm: KvmPtr, memory: p_u8) -> cython.void:
    """A frame is poisoned and becomes the last to be reused, so that stale sptes show."""
    memset(memory, 0xDB, PAGE_SIZE)
    tail: u64 = (kvm.user_free_head + kvm.user_free_count) % kvm.user_frames
    kvm.user_free[tail] = (memory - kvm.frames) >> PAGE_SHIFT
    kvm.user_free_count += 1
