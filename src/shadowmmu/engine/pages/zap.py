# SPDX-License-Identifier: GPL-2.0-only
"""Zapping: prepare (unlink everything, mark invalid), commit (flush, free), all at once, and the oldest.

Prepared pages wait on an invalid list until remote TLBs are flushed; only then is their memory freed (I11).
Special pages are on no list and in no hash, so nothing here ever finds one (R4, R8); what reaches them is the
unlinking of their children through parent_ptes (R5).

Inline in the .pxd, since they run in every fault: `available_pages`, `topup_memory_caches`, `make_pages_available`.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit, emit_sp
from cython.cimports.shadowmmu.engine.arena.role import Role, has_gptes, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_last, is_mmio_spte, is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    ENTRIES,
    Errno,
    KvmPtr,
    ListHead,
    ListHeadPtr,
    Request,
    ShadowPagePtr,
    gfn_t,
    list_add,
    list_del,
    list_init,
    p_spte,
    p_u64,
    spte_t,
    to_shadow_page,
    u64,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_remote_tlbs, make_all_request
from cython.cimports.shadowmmu.engine.memory.pte_list import PteListIter, pte_list_first
from cython.cimports.shadowmmu.engine.memory.rmap import drop_spte
from cython.cimports.shadowmmu.engine.pages.pages import (
    drop_parent_pte,
    first_with_gptes,
    free_shadow_page,
    is_obsolete,
    next_with_gptes,
    unaccount_huge_nx_page,
    unaccount_shadowed,
)
from cython.cimports.shadowmmu.engine.pages.unsync import (
    PageVec,
    Parents,
    clear_parents,
    pages_first,
    pages_next,
    unlink_unsync_page,
    unsync_walk,
)


def zap_pte(kvm: KvmPtr, sp: ShadowPagePtr, sptep: p_spte, invalid: ListHeadPtr) -> u64:
    """mmu_page_zap_pte: clear one entry, leaf, link or MMIO mark. Returns 1 if the child was zapped with it.

    A child is unlinked, not freed; it stays hashed for reuse. Only L2's pages, unlikely to be used again, are
    zapped once they have no parent, and only with an `invalid` list to put them on (R15: special roots pass
    none) - unless a root slot still holds them.
    """
    spte: spte_t = sptep[0]
    if not is_present(spte):
        if is_mmio_spte(kvm, spte):
            sptep[0] = kvm.masks.nonpresent
        return 0
    if is_last(spte, role_level(sp.role)):
        drop_spte(kvm, sptep)
        return 0
    child: ShadowPagePtr = to_shadow_page(kvm, spte)
    drop_parent_pte(kvm, child, sptep)
    if kvm.tdp and invalid != cython.NULL and child.role & Role.GUEST_MODE and not child.parent_ptes and not child.root_count:
        zapped: u64 = 0
        prepare_zap(kvm, child, invalid, cython.address(zapped))
        return zapped != 0  # kvm_mmu_prepare_zap_page returns a bool, so what went with the child is not counted
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def zap_unsync_children(kvm: KvmPtr, parent: ShadowPagePtr, invalid: ListHeadPtr) -> u64:
    """mmu_zap_unsync_children: zap every unsync page below: without its parent it could not be found for the next sync."""
    if role_level(parent.role) == 1:
        return 0
    zapped: u64 = 0
    ignored: u64 = 0
    vec: PageVec
    parents: Parents
    while unsync_walk(kvm, parent, cython.address(vec)):
        i: cython.int = pages_first(cython.address(vec), cython.address(parents))
        while i < vec.nr:
            prepare_zap(kvm, vec.page[i].sp, invalid, cython.address(ignored))
            clear_parents(kvm, cython.address(parents))
            zapped += 1
            i = pages_next(cython.address(vec), cython.address(parents), i)
    return zapped


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unlink_parents(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    """kvm_mmu_unlink_parents: clear every entry that points to the page, in special pages of any vCPU too (R5)."""
    it: PteListIter
    while sp.parent_ptes:
        drop_parent_pte(kvm, sp, pte_list_first(sp.parent_ptes, cython.address(it)))


def prepare_zap(kvm: KvmPtr, sp: ShadowPagePtr, invalid: ListHeadPtr, zapped: p_u64) -> cython.bint:
    """__kvm_mmu_prepare_zap_page. `*zapped`: pages put on the list. True: the active list changed under the caller.

    In the kernel: kvm_unaccount_mmu_page, kvm_mmu_page_unlink_children.
    """
    emit_sp(kvm, -1, Event.KVM_MMU_PREPARE_ZAP_PAGE, sp, 0)
    kvm.stat.mmu_shadow_zapped += 1
    count: u64 = zap_unsync_children(kvm, sp, invalid)
    nothing: spte_t = kvm.masks.nonpresent
    i: cython.int
    for i in range(ENTRIES):
        if sp.spt[i] != nothing:
            count += zap_pte(kvm, sp, cython.address(sp.spt[i]), invalid)
    unlink_parents(kvm, sp)
    unstable: cython.bint = count != 0
    if not sp.role & Role.INVALID and has_gptes(sp.role):
        unaccount_shadowed(kvm, sp)
    if sp.unsync:
        unlink_unsync_page(kvm, sp)
    zapped_root: cython.bint = False
    if not sp.root_count:
        count += 1
        # An invalid page was a root and left the active list when it was zapped first.
        if not sp.role & Role.INVALID:
            list_del(cython.address(sp.link))
        list_add(cython.address(sp.link), invalid)
        kvm.n_used_mmu_pages -= 1
    else:
        if not sp.role & Role.INVALID:
            list_del(cython.address(sp.link))
        zapped_root = not is_obsolete(kvm, sp)
    if sp.lpage_disallowed:
        unaccount_huge_nx_page(kvm, sp)
    sp.role |= Role.INVALID
    # Only after the mark, so that no vCPU takes the root for a good one.
    if zapped_root:
        make_all_request(kvm, Request.REQ_MMU_FREE_OBSOLETE_ROOTS)
    zapped[0] = count
    return unstable


def prepare_zap_page(kvm: KvmPtr, sp: ShadowPagePtr, invalid: ListHeadPtr) -> cython.bint:
    """kvm_mmu_prepare_zap_page: `prepare_zap` for callers that do not count."""
    zapped: u64 = 0
    return prepare_zap(kvm, sp, invalid, cython.address(zapped))


def commit_zap(kvm: KvmPtr, invalid: ListHeadPtr) -> cython.void:
    """kvm_mmu_commit_zap_page: flush all vCPUs, then free what was prepared.

    Hardware may have cached a PDPTE that was cleared: no page goes before every vCPU has flushed (H15).
    """
    if invalid.next == invalid:
        return
    flush_remote_tlbs(kvm)
    while invalid.next != invalid:
        free_shadow_page(kvm, cython.cast(ShadowPagePtr, invalid.next))


def remote_flush_or_zap(kvm: KvmPtr, invalid: ListHeadPtr, flush: cython.bint) -> cython.void:
    """kvm_mmu_remote_flush_or_zap: one flush for both: the prepared pages are freed behind it."""
    if invalid.next != invalid:
        commit_zap(kvm, invalid)
    elif flush:
        flush_remote_tlbs(kvm)


# --- running out of pages


def zap_oldest_pages(kvm: KvmPtr, nr_to_zap: u64) -> u64:
    """kvm_mmu_zap_oldest_mmu_pages: recycle from the tail, oldest first; roots stay, zapping them would only make vCPUs build new ones."""
    invalid: ListHead
    list_init(cython.address(invalid))
    total: u64 = 0
    emit(kvm, -1, Event.ZAP_OLDEST, nr_to_zap)
    entry: ListHeadPtr = kvm.active_mmu_pages.prev
    while entry != cython.address(kvm.active_mmu_pages) and total < nr_to_zap:
        sp: ShadowPagePtr = cython.cast(ShadowPagePtr, entry)
        entry = entry.prev
        if sp.root_count:
            continue
        zapped: u64 = 0
        if prepare_zap(kvm, sp, cython.address(invalid), cython.address(zapped)):
            entry = kvm.active_mmu_pages.prev
        total += zapped
    commit_zap(kvm, cython.address(invalid))
    kvm.stat.mmu_recycled += total
    return total


def recycle_pages(kvm: KvmPtr) -> cython.int:
    """make_mmu_pages_available: recycle when fewer than 5 pages are left. 0 or -ENOSPC."""
    available: u64 = available_pages(kvm)
    if available >= MIN_FREE_PAGES:
        return 0
    zap_oldest_pages(kvm, REFILL_PAGES - available)
    return 0 if available_pages(kvm) else -cython.cast(cython.int, Errno.ENOSPC)


def refill_memory_caches(kvm: KvmPtr) -> cython.int:
    """The pools run low: the oldest pages give their memory back. 0 or -ENOMEM."""
    while kvm.nfree_pages < CACHE_PAGES or kvm.nfree_descs < CACHE_DESCS:
        if not zap_oldest_pages(kvm, REFILL_PAGES):
            return -cython.cast(cython.int, Errno.ENOMEM)
    return 0


def change_mmu_pages(kvm: KvmPtr, goal: u64) -> cython.void:
    """kvm_mmu_change_mmu_pages: set the limit, zapping down to it."""
    if goal > kvm.npages_pool - MIN_FREE_PAGES:
        goal = kvm.npages_pool - MIN_FREE_PAGES
    if kvm.n_used_mmu_pages > goal:
        zap_oldest_pages(kvm, kvm.n_used_mmu_pages - goal)
        goal = kvm.n_used_mmu_pages
    kvm.n_max_mmu_pages = goal


# --- everything


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def zap_obsolete_pages(kvm: KvmPtr) -> cython.void:
    """kvm_zap_obsolete_pages: zap from the oldest page to the first of the new generation; the list is first in, first out."""
    invalid: ListHeadPtr = cython.address(kvm.zapped_obsolete_pages)
    entry: ListHeadPtr = kvm.active_mmu_pages.prev
    while entry != cython.address(kvm.active_mmu_pages):
        sp: ShadowPagePtr = cython.cast(ShadowPagePtr, entry)
        if not is_obsolete(kvm, sp):
            break
        entry = entry.prev
        if prepare_zap_page(kvm, sp, invalid):
            entry = kvm.active_mmu_pages.prev
    commit_zap(kvm, invalid)


def zap_all_fast(kvm: KvmPtr) -> cython.void:
    """kvm_mmu_zap_all_fast: toggle the one-bit generation, make every vCPU drop obsolete roots, zap the old pages.

    A run is complete before the next begins, so at most one obsolete generation exists. Special pages of the
    old generation are left alone: when the run ends all their entries have been unlinked, so they are right
    again if the generation comes back before their vCPU has looked (R11, R12).
    """
    emit(kvm, -1, Event.KVM_MMU_ZAP_ALL_FAST, kvm.mmu_valid_gen, kvm.n_used_mmu_pages)
    kvm.mmu_valid_gen ^= 1
    make_all_request(kvm, Request.REQ_MMU_FREE_OBSOLETE_ROOTS)
    zap_obsolete_pages(kvm)


def prepare_zap_shadows(kvm: KvmPtr, gfn: gfn_t, invalid: ListHeadPtr) -> cython.void:
    """Zap every page that shadows the table at `gfn`."""
    sp: ShadowPagePtr = first_with_gptes(kvm, gfn)
    while sp != cython.NULL:
        prepare_zap_page(kvm, sp, invalid)
        sp = next_with_gptes(kvm, sp.index_next, gfn)


def unprotect_page(kvm: KvmPtr, gfn: gfn_t) -> cython.bint:
    """kvm_mmu_unprotect_page: stop shadowing the table at `gfn`. True if a page went; a root that is in use is zapped, but stays."""
    emit(kvm, -1, Event.UNPROTECT_PAGE, gfn)
    invalid: ListHead
    list_init(cython.address(invalid))
    prepare_zap_shadows(kvm, gfn, cython.address(invalid))
    gone: cython.bint = invalid.next != cython.address(invalid)
    commit_zap(kvm, cython.address(invalid))
    return gone
