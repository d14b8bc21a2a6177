# SPDX-License-Identifier: GPL-2.0-only
"""Changing memslots: KVM_SET_USER_MEMORY_REGION.

A slot that is deleted or moved is first marked invalid, then everything is zapped, then it goes. Each step is a
new generation of the address space's slots, by which MMIO marks are told valid or old.
"""

import cython
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.shadowmmu.engine.arena.spte import mmio_gen
from cython.cimports.shadowmmu.engine.arena.state import (
    ADDRESS_SPACES,
    MAX_SLOTS,
    KvmPtr,
    ListHead,
    ManualProtect,
    MemSlot,
    MemSlotPtr,
    SlotFlag,
    gfn_t,
    list_init,
    u64,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_remote_tlbs
from cython.cimports.shadowmmu.engine.memory.host_memory import unmap_in_slot
from cython.cimports.shadowmmu.engine.memory.memslots import free_slot, install_slot, prepare_slot, release_slot, slot_by_id
from cython.cimports.shadowmmu.engine.pages.zap import change_mmu_pages, prepare_zap_shadows, remote_flush_or_zap, zap_all_fast
from cython.cimports.shadowmmu.engine.slots.dirty import slot_remove_write_access, zap_collapsible_sptes
from cython.cimports.shadowmmu.engine.slots.split import try_split_huge_pages


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def next_generation(kvm: KvmPtr, as_id: cython.int) -> cython.void:
    """kvm_swap_active_memslots, kvm_mmu_invalidate_mmio_sptes: generations go up by the number of address spaces, so that no two share one.

    When the part that fits into an entry wraps to 0, marks of long ago would look valid: zap all.
    """
    kvm.memslot_gen[as_id] += ADDRESS_SPACES
    if not mmio_gen(kvm, as_id) & ~cython.cast(u64, ADDRESS_SPACES - 1):
        zap_all_fast(kvm)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def recalculate_limit(kvm: KvmPtr) -> cython.void:
    """The default number of shadow pages follows the size of memory: a fiftieth of it, 64 at least."""
    if kvm.n_requested_mmu_pages:
        return
    wanted: u64 = kvm.nr_memslot_pages // 50
    change_mmu_pages(kvm, wanted if wanted > 64 else 64)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def overlaps(kvm: KvmPtr, as_id: cython.int, id: cython.int, base_gfn: gfn_t, npages: u64) -> cython.bint:
    i: cython.int
    for i in range(MAX_SLOTS):
        slot: MemSlotPtr = cython.address(kvm.slots[as_id][i])
        if slot.npages and slot.id != id and base_gfn < slot.base_gfn + slot.npages and slot.base_gfn < base_gfn + npages:
            return True
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def zap_memslot(kvm: KvmPtr, slot: MemSlotPtr) -> cython.void:
    """kvm_mmu_zap_memslot: every mapping of the slot's memory goes, then every page that shadows a table in it.

    Those are counted in the slot, so none may outlive it. Other pages stay, and so do roots that lie elsewhere.
    """
    invalid: ListHead
    list_init(cython.address(invalid))
    flush: cython.bint = unmap_in_slot(kvm, slot, slot.hva, slot.hva + slot.npages)
    gfn: gfn_t
    for gfn in range(slot.base_gfn, slot.base_gfn + slot.npages):
        prepare_zap_shadows(kvm, gfn, cython.address(invalid))
    remote_flush_or_zap(kvm, cython.address(invalid), flush)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def invalidate_slot(kvm: KvmPtr, slot: MemSlotPtr) -> cython.void:
    """kvm_mmu_invalidate_zap_pages_in_memslot: no new mapping of the slot is made from here on, and every old one goes."""
    slot.flags |= SlotFlag.SLOT_INVALID
    next_generation(kvm, slot.as_id)
    if kvm.rules.zaps_slot_alone:
        zap_memslot(kvm, slot)
    else:
        zap_all_fast(kvm)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def describe(slot: MemSlotPtr, as_id: cython.int, id: cython.int, base_gfn: gfn_t, npages: u64, hva: u64, flags: cython.int) -> cython.void:
    memset(slot, 0, cython.sizeof(MemSlot))
    slot.as_id = as_id
    slot.id = id
    slot.base_gfn = base_gfn
    slot.npages = npages
    slot.hva = hva
    slot.flags = flags


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def start_log(kvm: KvmPtr, slot: MemSlotPtr) -> cython.void:
    """A slot's dirty log begins: with no page dirty, or with all of them."""
    words: u64 = slot.npages // 64
    initially_set: cython.bint = (kvm.manual_dirty_log_protect & ManualProtect.INITIALLY_SET) != 0
    memset(slot.dirty_bitmap, 0xFF if initially_set else 0, words * 8)
    if slot.npages % 64:
        slot.dirty_bitmap[words] = (cython.cast(u64, 1) << slot.npages % 64) - 1 if initially_set else 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def protect_for_log(kvm: KvmPtr, slot: MemSlotPtr) -> cython.void:
    """Every page is to be seen when it is written; if all are taken as dirty at first, once their bits are cleared."""
    if kvm.manual_dirty_log_protect & ManualProtect.INITIALLY_SET:
        return
    try_split_huge_pages(kvm, slot, slot.base_gfn, slot.base_gfn + slot.npages)
    slot_remove_write_access(kvm, slot, 1)
    flush_remote_tlbs(kvm)


def slot_create(kvm: KvmPtr, as_id: cython.int, id: cython.int, base_gfn: gfn_t, npages: u64, hva: u64, flags: cython.int) -> cython.int:
    made: MemSlot
    describe(cython.address(made), as_id, id, base_gfn, npages, hva, flags)
    if overlaps(kvm, as_id, id, base_gfn, npages):
        return SlotResult.SLOT_OVERLAPS
    if free_slot(kvm, as_id) == cython.NULL or not prepare_slot(kvm, cython.address(made)):
        return SlotResult.SLOT_NO_ROOM
    if flags & SlotFlag.SLOT_LOG_DIRTY:
        start_log(kvm, cython.address(made))
    install_slot(kvm, cython.address(made))
    next_generation(kvm, as_id)
    recalculate_limit(kvm)
    return SlotResult.SLOT_OK


def slot_delete(kvm: KvmPtr, as_id: cython.int, id: cython.int) -> cython.int:
    slot: MemSlotPtr = slot_by_id(kvm, as_id, id)
    if slot == cython.NULL:
        return SlotResult.SLOT_UNKNOWN
    invalidate_slot(kvm, slot)
    release_slot(kvm, slot)
    next_generation(kvm, as_id)
    recalculate_limit(kvm)
    return SlotResult.SLOT_OK


def slot_move(kvm: KvmPtr, as_id: cython.int, id: cython.int, base_gfn: gfn_t, flags: cython.int) -> cython.int:
    """Give a slot another guest address, and flags; its memory stays, and its dirty log while logging goes on."""
    old: MemSlotPtr = slot_by_id(kvm, as_id, id)
    if old == cython.NULL:
        return SlotResult.SLOT_UNKNOWN
    if overlaps(kvm, as_id, id, base_gfn, old.npages):
        return SlotResult.SLOT_OVERLAPS
    made: MemSlot
    describe(cython.address(made), as_id, id, base_gfn, old.npages, old.hva, flags)
    if not prepare_slot(kvm, cython.address(made)):
        return SlotResult.SLOT_NO_ROOM
    logged: cython.bint = (old.flags & SlotFlag.SLOT_LOG_DIRTY) != 0
    invalidate_slot(kvm, old)
    if flags & SlotFlag.SLOT_LOG_DIRTY and logged:
        memcpy(made.dirty_bitmap, old.dirty_bitmap, (old.npages + 63) // 64 * 8)
    elif flags & SlotFlag.SLOT_LOG_DIRTY:
        start_log(kvm, cython.address(made))
    release_slot(kvm, old)
    install_slot(kvm, cython.address(made))
    next_generation(kvm, as_id)
    return SlotResult.SLOT_OK


def slot_set_flags(kvm: KvmPtr, as_id: cython.int, id: cython.int, flags: cython.int) -> cython.int:
    """Turn dirty logging on or off (kvm_mmu_slot_apply_flags). A read-only slot has nothing to protect or collapse."""
    slot: MemSlotPtr = slot_by_id(kvm, as_id, id)
    if slot == cython.NULL:
        return SlotResult.SLOT_UNKNOWN
    changed: cython.int = slot.flags ^ flags
    slot.flags = flags
    next_generation(kvm, as_id)
    if changed & flags & SlotFlag.SLOT_LOG_DIRTY:
        start_log(kvm, slot)
    if not changed & SlotFlag.SLOT_LOG_DIRTY or flags & SlotFlag.SLOT_READONLY:
        return SlotResult.SLOT_OK
    if flags & SlotFlag.SLOT_LOG_DIRTY:
        protect_for_log(kvm, slot)
    else:
        zap_collapsible_sptes(kvm, slot)
    return SlotResult.SLOT_OK
