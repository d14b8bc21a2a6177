# SPDX-License-Identifier: GPL-2.0-only
"""Memslots: guest frame -> host user page -> host frame, and what is kept per guest frame.

A slot maps `npages` gfns to consecutive host user pages; `hva_map` is the host's own page table of that user
memory (`host_memory`). Per gfn a slot keeps the rmap heads of each page size, the
count of causes that forbid a large page, the write-tracking count and the dirty bit.

Inline in the .pxd, since they run in every fault: `gfn_to_memslot`, `slot_shift`, `gfn_to_rmap`, `first_hva_entry`, `hva_entry`,
`set_hva_entry`, `host_mapping`, `is_write_tracked`, `mark_page_dirty`.
"""

import cython
from cython.cimports.libc.string import memset
from cython.cimports.shadowmmu.engine.arena.kasan import KASAN_REDZONE, kasan_poison, kasan_unpoison
from cython.cimports.shadowmmu.engine.arena.role import role_as_id
from cython.cimports.shadowmmu.engine.arena.state import (
    ADDRESS_SPACES,
    MAX_SLOTS,
    Bug,
    KvmPtr,
    MemSlot,
    MemSlotPtr,
    SlotFlag,
    carve,
    gfn_t,
    p_u8,
    p_u16,
    p_u64,
    pages_per_hpage,
    role_t,
    u64,
    warn,
)


def search_memslots(kvm: KvmPtr, as_id: cython.int, gfn: gfn_t) -> MemSlotPtr:
    """`gfn_to_memslot` when the last slot was not it."""
    i: cython.int
    for i in range(MAX_SLOTS):
        slot: MemSlotPtr = cython.address(kvm.slots[as_id][i])
        if gfn - slot.base_gfn < slot.npages:
            kvm.last_slot[as_id] = slot
            return slot
    return cython.NULL


def slot_by_id(kvm: KvmPtr, as_id: cython.int, id: cython.int) -> MemSlotPtr:
    i: cython.int
    for i in range(MAX_SLOTS):
        if kvm.slots[as_id][i].npages and kvm.slots[as_id][i].id == id:
            return cython.address(kvm.slots[as_id][i])
    return cython.NULL


def memslot_for_role(kvm: KvmPtr, role: role_t, gfn: gfn_t) -> MemSlotPtr:
    """The slot in the address space that a shadow page with `role` maps."""
    return gfn_to_memslot(kvm, role_as_id(role), gfn)


def is_visible_gfn(kvm: KvmPtr, as_id: cython.int, gfn: gfn_t) -> cython.bint:
    """kvm_is_visible_gfn: there is memory, and it is not being taken away."""
    slot: MemSlotPtr = gfn_to_memslot(kvm, as_id, gfn)
    return slot != cython.NULL and not slot.flags & SlotFlag.SLOT_INVALID


def lpage_info(slot: MemSlotPtr, gfn: gfn_t, level: cython.int) -> cython.p_int:
    """lpage_info_slot: disallow_lpage of the page of `level` (2 or 3) around `gfn`."""
    return cython.address(slot.disallow_lpage[level - 2][(gfn >> slot_shift(level)) - (slot.base_gfn >> slot_shift(level))])


def update_disallow_lpage(kvm: KvmPtr, slot: MemSlotPtr, gfn: gfn_t, count: cython.int) -> cython.void:
    """One cause more, or less, why no large page may lie around `gfn`.

    In the kernel: update_gfn_disallow_lpage_count, kvm_mmu_gfn_disallow_lpage, kvm_mmu_gfn_allow_lpage.
    """
    level: cython.int
    for level in range(2, 4):
        info: cython.p_int = lpage_info(slot, gfn, level)
        info[0] += count
        if info[0] < 0:
            warn(kvm, Bug.BUG_DISALLOW_LPAGE)


def update_gfn_track(kvm: KvmPtr, slot: MemSlotPtr, gfn: gfn_t, count: cython.int) -> cython.void:
    """Write tracking: while the count is not zero no writable spte may map the gfn."""
    value: cython.int = slot.gfn_write_track[gfn - slot.base_gfn] + count
    if value < 0 or value > 0xFFFF:
        warn(kvm, Bug.BUG_GFN_TRACK)
        return
    slot.gfn_write_track[gfn - slot.base_gfn] = value


# --- making slots


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def find_meta(kvm: KvmPtr, size: u64) -> u64:
    """First gap of `size` bytes among the slots' metadata; meta_size when there is none."""
    at: u64 = 0
    moved: cython.bint = True
    while moved:
        moved = False
        as_id: cython.int
        i: cython.int
        for as_id in range(ADDRESS_SPACES):
            for i in range(MAX_SLOTS):
                slot: MemSlotPtr = cython.address(kvm.slots[as_id][i])
                if slot.npages and slot.meta_at < at + size and at < slot.meta_at + slot.meta_size:
                    at = slot.meta_at + slot.meta_size
                    moved = True
    return at if at + size <= kvm.meta_size else kvm.meta_size


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def level_count(base_gfn: gfn_t, npages: u64, level: cython.int) -> u64:
    """Entries of `level` that a slot touches."""
    shift: cython.int = slot_shift(level)
    return ((base_gfn + npages - 1) >> shift) - (base_gfn >> shift) + 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def place_meta(slot: MemSlotPtr, base: p_u8) -> u64:
    """Point the slot's arrays into metadata that begins at `base`; returns their size, a multiple of 8 bytes.

    In the kernel: kvm_page_track_create_memslot.
    """
    at: u64 = 0
    end: p_u64 = cython.address(at)
    level: cython.int
    for level in range(1, 4):
        slot.rmap[level - 1] = cython.cast(p_u64, base + carve(end, level_count(slot.base_gfn, slot.npages, level), 8, 8))
    slot.dirty_bitmap = cython.cast(p_u64, base + carve(end, (slot.npages + 63) // 64, 8, 8))
    for level in range(2, 4):
        slot.disallow_lpage[level - 2] = cython.cast(cython.p_int, base + carve(end, level_count(slot.base_gfn, slot.npages, level), 4, 8))
    slot.gfn_write_track = cython.cast(p_u16, base + carve(end, slot.npages, 2, 8))
    return (at + 7) & ~cython.cast(u64, 7)


def kasan_fence(slot: MemSlotPtr) -> cython.void:
    """Nothing may be touched before and between the arrays of a slot."""
    level: cython.int
    for level in range(1, 4):
        kasan_poison(cython.cast(p_u8, slot.rmap[level - 1]) - KASAN_REDZONE, KASAN_REDZONE)
    kasan_poison(cython.cast(p_u8, slot.dirty_bitmap) - KASAN_REDZONE, KASAN_REDZONE)
    for level in range(2, 4):
        kasan_poison(cython.cast(p_u8, slot.disallow_lpage[level - 2]) - KASAN_REDZONE, KASAN_REDZONE)
    kasan_poison(cython.cast(p_u8, slot.gfn_write_track) - KASAN_REDZONE, KASAN_REDZONE)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def init_lpage_info(slot: MemSlotPtr) -> cython.void:
    """Forbid large pages at unaligned ends, and everywhere if gfn and host address are not aligned alike."""
    level: cython.int
    for level in range(2, 4):
        mask: u64 = pages_per_hpage(level) - 1
        count: u64 = level_count(slot.base_gfn, slot.npages, level)
        info: cython.p_int = slot.disallow_lpage[level - 2]
        if slot.base_gfn & mask:
            info[0] = 1
        if (slot.base_gfn + slot.npages) & mask:
            info[count - 1] = 1
        if (slot.base_gfn ^ slot.hva) & mask:
            i: u64
            for i in range(count):
                info[i] = 1


def free_slot(kvm: KvmPtr, as_id: cython.int) -> MemSlotPtr:
    i: cython.int
    for i in range(MAX_SLOTS):
        if not kvm.slots[as_id][i].npages:
            return cython.address(kvm.slots[as_id][i])
    return cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def clear_meta(kvm: KvmPtr, at: u64, size: u64) -> cython.void:
    """What another slot had there is cleared; where none ever was all is 0, and stays untouched."""
    kasan_unpoison(kvm.meta + at, size)
    if at < kvm.meta_used:
        memset(kvm.meta + at, 0, min(size, kvm.meta_used - at))
    kvm.meta_used = max(kvm.meta_used, at + size)


def prepare_slot(kvm: KvmPtr, slot: MemSlotPtr) -> cython.bint:
    """Find metadata space for a slot described by its first fields and clear it. False: none is left."""
    slot.meta_size = place_meta(slot, kvm.meta)
    slot.meta_at = find_meta(kvm, slot.meta_size)
    if slot.meta_at == kvm.meta_size:
        return False
    clear_meta(kvm, slot.meta_at, slot.meta_size)
    place_meta(slot, kvm.meta + slot.meta_at)
    kasan_fence(slot)
    init_lpage_info(slot)
    return True


def install_slot(kvm: KvmPtr, prepared: MemSlotPtr) -> cython.void:
    """Make a prepared slot visible; the caller has seen that an entry is free."""
    free_slot(kvm, prepared.as_id)[0] = prepared[0]
    kvm.nslots[prepared.as_id] += 1
    if prepared.as_id == 0:
        kvm.nr_memslot_pages += prepared.npages


def release_slot(kvm: KvmPtr, slot: MemSlotPtr) -> cython.void:
    """kvm_page_track_free_memslot: forget a slot; its pages must have been zapped before."""
    if slot.as_id == 0:
        kvm.nr_memslot_pages -= slot.npages
    kvm.last_slot[slot.as_id] = cython.NULL
    kvm.nslots[slot.as_id] -= 1
    kasan_poison(kvm.meta + slot.meta_at, slot.meta_size)
    memset(slot, 0, cython.sizeof(MemSlot))
