# SPDX-License-Identifier: GPL-2.0-only
"""Shadow pages: birth and death, hash, active list, accounting, link and unlink. Mechanism, no policy.

Inline in the .pxd, since they run in every fault: `is_obsolete`, `clear_write_flooding`, `next_valid`, `first_valid`,
`next_with_gptes`, `first_with_gptes`.
"""

import cython
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.shadowmmu.engine.arena.kasan import kasan_poison, kasan_unpoison
from cython.cimports.shadowmmu.engine.arena.role import Role, has_gptes, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_present, make_nonleaf_spte, make_pdpte
from cython.cimports.shadowmmu.engine.arena.state import (
    ENTRIES,
    PAGE_SHIFT,
    PAGE_SIZE,
    Bug,
    KvmPtr,
    ListHeadPtr,
    MemSlotPtr,
    ShadowPage,
    ShadowPagePtr,
    gfn_t,
    list_add,
    list_add_tail,
    list_del,
    p_spte,
    role_t,
    spte_index,
    sptep_to_sp,
    u64,
    unlikely,
    warn,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_remote_tlbs
from cython.cimports.shadowmmu.engine.memory.memslots import memslot_for_role, update_disallow_lpage, update_gfn_track
from cython.cimports.shadowmmu.engine.memory.pte_list import PteListIter, pte_list_add, pte_list_first, pte_list_next, pte_list_remove
from cython.cimports.shadowmmu.engine.memory.rmap import slot_write_protect_gfn
from cython.cimports.shadowmmu.engine.pages.page_index import grow_index, hash_insert, hash_remove

# --- headers and tables


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def carve_header(kvm: KvmPtr) -> ShadowPagePtr:
    """The first header that was never used; the index grows with their number. NULL: there is none."""
    if kvm.npages_carved == kvm.npages_pool:
        return cython.NULL
    grow_index(kvm)
    sp: ShadowPagePtr = cython.address(kvm.pages[kvm.npages_carved])
    kasan_unpoison(sp, cython.sizeof(ShadowPage))
    kvm.npages_carved += 1
    return sp


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free_header(kvm: KvmPtr) -> ShadowPagePtr:
    """The header that was given back last, or else one that was never used."""
    entry: ListHeadPtr = kvm.free_pages.next
    if entry == cython.address(kvm.free_pages):
        return carve_header(kvm)
    list_del(entry)
    return cython.cast(ShadowPagePtr, entry)


def take_header(kvm: KvmPtr) -> ShadowPagePtr:
    """A zeroed header, and a table with nothing in it. NULL if the pool is empty, which the top-up before each use excludes."""
    sp: ShadowPagePtr = free_header(kvm)
    if sp == cython.NULL:
        warn(kvm, Bug.BUG_OUT_OF_PAGES)
        return cython.NULL
    kvm.nfree_pages -= 1
    memset(sp, 0, cython.sizeof(ShadowPage))
    sp.live = True
    sp.owner = -1
    frame: u64 = kvm.table_base + (sp - kvm.pages)
    sp.spt = cython.cast(p_spte, kvm.frames + (frame << PAGE_SHIFT))
    kasan_unpoison(sp.spt, PAGE_SIZE)
    sp.nothing = kvm.masks.nonpresent
    memcpy(sp.spt, kvm.empty_table, PAGE_SIZE)
    kvm.frame_private[frame] = sp
    return sp


def give_header(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    """Return header and table; the table is poisoned with non-present bytes that no walk may meet."""
    frame: u64 = kvm.table_base + (sp - kvm.pages)
    memset(kvm.frames + (frame << PAGE_SHIFT), POISON, PAGE_SIZE)
    kasan_poison(kvm.frames + (frame << PAGE_SHIFT), PAGE_SIZE)
    kasan_poison(kvm.translations + (sp - kvm.pages) * ENTRIES, PAGE_SIZE)
    kvm.frame_private[frame] = cython.NULL
    sp.live = False
    list_add(cython.address(sp.link), cython.address(kvm.free_pages))
    kvm.nfree_pages += 1


def alloc_shadow_page(kvm: KvmPtr, gfn: gfn_t, role: role_t) -> ShadowPagePtr:
    """kvm_mmu_alloc_shadow_page: a new page, listed, hashed, counted, its guest table protected.

    In the kernel: kvm_mod_used_mmu_pages, kvm_account_mmu_page.
    """
    sp: ShadowPagePtr = take_header(kvm)
    if sp == cython.NULL:
        return cython.NULL
    if not role & Role.DIRECT:
        sp.translation = kvm.translations + (sp - kvm.pages) * ENTRIES
        kasan_unpoison(sp.translation, PAGE_SIZE)
    sp.mmu_valid_gen = kvm.mmu_valid_gen
    list_add(cython.address(sp.link), cython.address(kvm.active_mmu_pages))
    kvm.n_used_mmu_pages += 1
    sp.gfn = gfn
    sp.role = role
    hash_insert(kvm, sp)
    if has_gptes(role):
        account_shadowed(kvm, sp)
    return sp


def free_shadow_page(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    """kvm_mmu_free_shadow_page: the last step, after prepare_zap and the TLB flush."""
    if sp.root_count:
        warn(kvm, Bug.BUG_FREE_ROOTED)
    if not sp.role & Role.INVALID:
        warn(kvm, Bug.BUG_FREE_VALID)
    hash_remove(kvm, sp)
    list_del(cython.address(sp.link))
    give_header(kvm, sp)


# --- accounting of shadowed guest tables


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def account_shadowed(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    """kvm_slot_page_track_add_page: a guest table is being shadowed: count it and write-protect it everywhere.

    Special pages never come here (R7).

    Above level 1 the table stays write-tracked as long as it is shadowed. A level-1 table may go unsync later,
    so it is only protected now.
    """
    slot: MemSlotPtr = memslot_for_role(kvm, sp.role, sp.gfn)
    kvm.indirect_shadow_pages += 1
    if slot == cython.NULL:
        return
    if role_level(sp.role) > 1:
        update_gfn_track(kvm, slot, sp.gfn, 1)
    update_disallow_lpage(kvm, slot, sp.gfn, 1)
    if slot_write_protect_gfn(kvm, slot, sp.gfn, 1):
        flush_remote_tlbs(kvm)


def unaccount_shadowed(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    """kvm_slot_page_track_remove_page: the table is no longer shadowed: it may be written and mapped large again."""
    slot: MemSlotPtr = memslot_for_role(kvm, sp.role, sp.gfn)
    kvm.indirect_shadow_pages -= 1
    if slot == cython.NULL:
        return
    if role_level(sp.role) > 1:
        update_gfn_track(kvm, slot, sp.gfn, -1)
    update_disallow_lpage(kvm, slot, sp.gfn, -1)


# --- unsync marks on the way up


def mark_unsync(kvm: KvmPtr, sptep: p_spte) -> cython.void:
    """Something below this entry may be unsync: set the parent's bit and, if it is its first, tell its parents.

    Reaches special pages of every vCPU through parent_ptes (R5).
    """
    sp: ShadowPagePtr = sptep_to_sp(kvm, sptep)
    if sp == cython.NULL:
        return
    index: cython.int = spte_index(sptep)
    bit: u64 = cython.cast(u64, 1) << (index & 63)
    if sp.unsync_child_bitmap[index >> 6] & bit:
        return
    sp.unsync_child_bitmap[index >> 6] |= bit
    sp.unsync_children += 1
    if sp.unsync_children == 1:
        mark_parents_unsync(kvm, sp)


def mark_parents_unsync(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    """kvm_mmu_mark_parents_unsync: tell every entry that leads to the page."""
    it: PteListIter
    sptep: p_spte = pte_list_first(sp.parent_ptes, cython.address(it))
    while sptep != cython.NULL:
        mark_unsync(kvm, sptep)
        sptep = pte_list_next(cython.address(it))


# --- link and unlink


def add_parent_pte(kvm: KvmPtr, sp: ShadowPagePtr, parent_pte: p_spte) -> cython.void:
    """mmu_page_add_parent_pte: `parent_pte` leads to `sp` from now on."""
    pte_list_add(kvm, parent_pte, cython.address(sp.parent_ptes))


def drop_parent_pte(kvm: KvmPtr, sp: ShadowPagePtr, parent_pte: p_spte) -> cython.void:
    """mmu_page_remove_parent_pte: unlink `sp` from one parent entry, in which there is nothing then."""
    pte_list_remove(kvm, parent_pte, cython.address(sp.parent_ptes))
    parent_pte[0] = sptep_to_sp(kvm, parent_pte).nothing


def link_shadow_page(kvm: KvmPtr, sptep: p_spte, sp: ShadowPagePtr, root_level: cython.int) -> cython.void:
    """__link_shadow_page: point `sptep`, where nothing is present, to `sp`; special pages are linked as any other (R10).

    A PAE root's entries have their own format.
    """
    if unlikely(is_present(sptep[0])):
        warn(kvm, Bug.BUG_LINK_PRESENT)
    if root_level == 3 and role_level(sp.role) == 2:
        sptep[0] = make_pdpte(kvm, sp.spt)
    else:
        sptep[0] = make_nonleaf_spte(kvm, sp.spt, (sp.role & Role.AD_DISABLED) != 0)
    add_parent_pte(kvm, sp, sptep)
    # A level-1 page may be linked unsync: it was synced, but its table was not write-protected.
    # Anything higher was synced with its children before.
    if role_level(sp.role) > 1 and sp.unsync_children:
        warn(kvm, Bug.BUG_LINK_UNSYNC_CHILDREN)
    if sp.unsync_children or sp.unsync:
        mark_unsync(kvm, sptep)


# --- executable huge pages that were split (iTLB multihit)


def account_huge_nx_page(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    """The page exists only because executable huge pages are forbidden."""
    if sp.lpage_disallowed:
        return
    sp.lpage_disallowed = True
    kvm.stat.nx_lpage_splits += 1
    list_add_tail(cython.address(sp.lpage_disallowed_link), cython.address(kvm.lpage_disallowed_mmu_pages))


def unaccount_huge_nx_page(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    sp.lpage_disallowed = False
    kvm.stat.nx_lpage_splits -= 1
    list_del(cython.address(sp.lpage_disallowed_link))
