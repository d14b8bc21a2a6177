# SPDX-License-Identifier: GPL-2.0-only
"""Leaf sptes and the rmap of the gfn they map: set, update, write-protect, drop.

Every present leaf is in exactly one rmap list, that of (its gfn, its level) in the memslot of its address
space (invariant I1). What may change an entry goes through here, so that flush rules live in one place.

Inline in the .pxd, since they run in every fault: `sp_gfn_of`, `set_translation`, `set_access`, `update_page_stats`.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Access, role_access, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_accessed, is_dirty, is_present, is_writable, mark_for_access_track, spte_pfn
from cython.cimports.shadowmmu.engine.arena.state import (
    RMAP_RECYCLE_THRESHOLD,
    Bug,
    KvmPtr,
    MemSlotPtr,
    ShadowPagePtr,
    gfn_t,
    p_spte,
    p_u64,
    spte_index,
    spte_t,
    sptep_to_sp,
    u64,
    warn,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_remote_tlbs
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_rmap, memslot_for_role
from cython.cimports.shadowmmu.engine.memory.pte_list import PteListIter, pte_list_add, pte_list_first, pte_list_next, pte_list_remove
from cython.cimports.shadowmmu.x86.pte import Pte


def sp_access_of(sp: ShadowPagePtr, index: cython.int) -> cython.int:
    """kvm_mmu_page_get_access: the rights that entry `index` was made with."""
    if sp.translation != cython.NULL:
        return sp.translation[index] & Access.ALL
    return role_access(sp.role)


def spte_update(kvm: KvmPtr, sptep: p_spte, value: spte_t) -> cython.bint:
    """mmu_spte_update, mmu_spte_update_no_track: change a leaf in place; True if stale TLB entries would be more than the new value allows.

    The test is on MMU-writable, not on W: an entry may be read-only already while a TLB still holds the W that
    the lockless fast path gave back. Linux 6.1 flushes for A and D, too; a dirty log that begins or is read flushes by itself.
    """
    old: spte_t = sptep[0]
    sptep[0] = value
    if not is_present(old):
        return False
    if spte_pfn(old) != spte_pfn(value):
        warn(kvm, Bug.BUG_PFN_CHANGED)
    if kvm.rules.flushes_write_alone:
        return (old & ~value & kvm.masks.mmu_writable) != 0
    flush: cython.bint = (old & kvm.masks.mmu_writable) != 0 and not is_writable(value)
    if is_accessed(kvm, old) and not is_accessed(kvm, value):
        flush = True
    if is_dirty(kvm, old) and not is_dirty(kvm, value):
        flush = True
    return flush


def clear_track_bits(kvm: KvmPtr, sptep: p_spte) -> u64:
    """mmu_spte_clear_track_bits: clear a leaf and its page statistics; returns what it was."""
    old: spte_t = sptep[0]
    sptep[0] = kvm.masks.nonpresent
    if is_present(old):
        update_page_stats(kvm, role_level(sptep_to_sp(kvm, sptep).role), -1)
    return old


def drop_spte(kvm: KvmPtr, sptep: p_spte) -> cython.void:
    """rmap_remove: clear a leaf and take it out of its gfn's rmap; an MMIO mark is just cleared."""
    if not is_present(clear_track_bits(kvm, sptep)):
        return
    sp: ShadowPagePtr = sptep_to_sp(kvm, sptep)
    gfn: gfn_t = sp_gfn_of(sp, spte_index(sptep))
    slot: MemSlotPtr = memslot_for_role(kvm, sp.role, gfn)
    if slot == cython.NULL:
        warn(kvm, Bug.BUG_RMAP_ENTRY_MISSING)
        return
    pte_list_remove(kvm, sptep, gfn_to_rmap(slot, gfn, role_level(sp.role)))


def rmap_add(kvm: KvmPtr, slot: MemSlotPtr, sptep: p_spte, gfn: gfn_t, access: cython.int) -> cython.void:
    """__rmap_add: enter a new leaf into its gfn's rmap; a gfn mapped more than a thousand times is unmapped everywhere."""
    sp: ShadowPagePtr = sptep_to_sp(kvm, sptep)
    level: cython.int = role_level(sp.role)
    set_translation(kvm, sp, spte_index(sptep), gfn, access)
    update_page_stats(kvm, level, 1)
    head: p_u64 = gfn_to_rmap(slot, gfn, level)
    count: u64 = pte_list_add(kvm, sptep, head)
    if count > kvm.stat.max_mmu_rmap_size:
        kvm.stat.max_mmu_rmap_size = count
    if count > RMAP_RECYCLE_THRESHOLD:
        zap_all_rmap_sptes(kvm, head)
        flush_remote_tlbs(kvm)


def spte_write_protect(kvm: KvmPtr, sptep: p_spte, pt_protect: cython.bint) -> cython.bint:
    """Take W away; for a page table (`pt_protect`) MMU-writable too, so that the fast path cannot give it back."""
    spte: spte_t = sptep[0]
    if not is_writable(spte) and not (pt_protect and spte & kvm.masks.mmu_writable):
        return False
    if pt_protect:
        spte &= ~kvm.masks.mmu_writable
    return spte_update(kvm, sptep, spte & ~cython.cast(u64, Pte.WRITABLE))


def rmap_write_protect(kvm: KvmPtr, head: p_u64, pt_protect: cython.bint) -> cython.bint:
    """Write-protect every mapping in a list; True if a TLB flush is due."""
    flush: cython.bint = False
    it: PteListIter
    sptep: p_spte = pte_list_first(head[0], cython.address(it))
    while sptep != cython.NULL:
        if spte_write_protect(kvm, sptep, pt_protect):
            flush = True
        sptep = pte_list_next(cython.address(it))
    return flush


def age_rmap(kvm: KvmPtr, head: p_u64) -> cython.bint:
    """kvm_age_rmap, mmu_spte_age: forget that the mappings in a list were accessed; True if one was. No TLB is flushed for it."""
    young: cython.bint = False
    it: PteListIter
    sptep: p_spte = pte_list_first(head[0], cython.address(it))
    while sptep != cython.NULL:
        if is_accessed(kvm, sptep[0]):
            sptep[0] = mark_for_access_track(kvm, sptep[0])
            young = True
        sptep = pte_list_next(cython.address(it))
    return young


def slot_write_protect_gfn(kvm: KvmPtr, slot: MemSlotPtr, gfn: gfn_t, min_level: cython.int) -> cython.bint:
    """kvm_mmu_slot_gfn_write_protect: no mapping of `gfn`, of any size from `min_level`, stays writable."""
    flush: cython.bint = False
    level: cython.int
    for level in range(min_level, 4):
        if rmap_write_protect(kvm, gfn_to_rmap(slot, gfn, level), True):
            flush = True
    return flush


def zap_all_rmap_sptes(kvm: KvmPtr, head: p_u64) -> cython.bint:
    """kvm_zap_one_rmap_spte, kvm_zap_all_rmap_sptes, __kvm_zap_rmap: clear every mapping in a list; True if there was one."""
    any_zapped: cython.bint = False
    it: PteListIter
    while head[0]:
        sptep: p_spte = pte_list_first(head[0], cython.address(it))
        clear_track_bits(kvm, sptep)
        pte_list_remove(kvm, sptep, head)
        any_zapped = True
    return any_zapped
