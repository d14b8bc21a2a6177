# SPDX-License-Identifier: GPL-2.0-only
"""Unsync pages: a level-1 guest table may be writable while it is shadowed, until the guest flushes its TLB.

Every ancestor of an unsync page has the bit of the path set (invariant I6); bits may be set without need,
a walk clears those. Bits are set on the way up by `pages.mark_unsync`, through all parents.

Inline in the .pxd, since it runs in every fault: `try_to_unsync_pages`.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit_sp
from cython.cimports.shadowmmu.engine.arena.role import role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_large, is_present
from cython.cimports.shadowmmu.engine.arena.state import Bug, Errno, KvmPtr, ShadowPagePtr, gfn_t, spte_t, to_shadow_page, u64, warn
from cython.cimports.shadowmmu.engine.pages.pages import first_with_gptes, mark_parents_unsync, next_with_gptes

# --- which pages below are unsync


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def clear_child_bit(kvm: KvmPtr, sp: ShadowPagePtr, index: cython.int) -> cython.void:
    """clear_unsync_child_bit: nothing below this entry is unsync any more."""
    bit: u64 = cython.cast(u64, 1) << (index & 63)
    if not sp.unsync_child_bitmap[index >> 6] & bit or not sp.unsync_children:
        warn(kvm, Bug.BUG_UNSYNC_COUNT)
        return
    sp.unsync_child_bitmap[index >> 6] &= ~bit
    sp.unsync_children -= 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def pages_add(vec: PageVecPtr, sp: ShadowPagePtr, index: cython.int) -> cython.bint:
    """mmu_pages_add: append to the path vector; an unsync page is entered once. True: the vector is full now."""
    i: cython.int
    if sp.unsync:
        for i in range(vec.nr):
            if vec.page[i].sp == sp:
                return False
    vec.page[vec.nr].sp = sp
    vec.page[vec.nr].index = index
    vec.nr += 1
    return vec.nr == PAGE_ARRAY_NR


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk_entry(kvm: KvmPtr, sp: ShadowPagePtr, i: cython.int, vec: PageVecPtr) -> cython.int:
    """One marked entry of `sp`: number of unsync pages found below, -ENOSPC when the vector is full."""
    spte: spte_t = sp.spt[i]
    if not is_present(spte) or is_large(spte):
        clear_child_bit(kvm, sp, i)
        return 0
    child: ShadowPagePtr = to_shadow_page(kvm, spte)
    if child.unsync_children:
        if pages_add(vec, child, i):
            return -cython.cast(cython.int, Errno.ENOSPC)
        found: cython.int = walk_bits(kvm, child, vec)
        if not found:
            clear_child_bit(kvm, sp, i)
        return found
    if child.unsync:
        return -cython.cast(cython.int, Errno.ENOSPC) if pages_add(vec, child, i) else 1
    clear_child_bit(kvm, sp, i)
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk_bits(kvm: KvmPtr, sp: ShadowPagePtr, vec: PageVecPtr) -> cython.int:
    """__mmu_unsync_walk: collect unsync pages along the set bits, clearing bits that lead nowhere."""
    total: cython.int = 0
    word: cython.int
    bit: cython.int
    for word in range(8):
        if not sp.unsync_child_bitmap[word]:
            continue
        for bit in range(64):
            if not sp.unsync_child_bitmap[word] >> bit & 1:
                continue
            found: cython.int = walk_entry(kvm, sp, word * 64 + bit, vec)
            if found < 0:
                return found
            total += found
    return total


def unsync_walk(kvm: KvmPtr, sp: ShadowPagePtr, vec: PageVecPtr) -> cython.int:
    """mmu_unsync_walk: up to 16 path entries to unsync pages below `sp`; 0 when there is none."""
    vec.nr = 0
    if not sp.unsync_children:
        return 0
    pages_add(vec, sp, -1)
    return walk_bits(kvm, sp, vec)


def pages_next(vec: PageVecPtr, parents: ParentsPtr, i: cython.int) -> cython.int:
    """mmu_pages_next: index of the next level-1 page in the vector, with `parents` set to its path."""
    n: cython.int = i + 1
    while n < vec.nr:
        sp: ShadowPagePtr = vec.page[n].sp
        level: cython.int = role_level(sp.role)
        parents.index[level - 1] = vec.page[n].index
        if level == 1:
            break
        parents.parent[level - 2] = sp
        n += 1
    return n


def pages_first(vec: PageVecPtr, parents: ParentsPtr) -> cython.int:
    """mmu_pages_first: index of the first level-1 page in the vector, with its path."""
    if not vec.nr:
        return 0
    level: cython.int = role_level(vec.page[0].sp.role)
    parents.parent[level - 2] = vec.page[0].sp
    parents.parent[level - 1] = cython.NULL
    return pages_next(vec, parents, 0)


def clear_parents(kvm: KvmPtr, parents: ParentsPtr) -> cython.void:
    """mmu_pages_clear_parents: the page at hand is in sync again: clear its path's bits upward as long as counters reach zero."""
    level: cython.int = 0
    while True:
        sp: ShadowPagePtr = parents.parent[level]
        if sp == cython.NULL:
            return
        clear_child_bit(kvm, sp, parents.index[level])
        level += 1
        if sp.unsync_children:
            return


# --- in and out of the state


def unlink_unsync_page(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    """kvm_unlink_unsync_page: the page counts as in sync; the caller makes that true."""
    emit_sp(kvm, -1, Event.KVM_MMU_SYNC_PAGE, sp, 0)
    sp.unsync = False
    kvm.stat.mmu_unsync -= 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unsync_page(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    """kvm_unsync_page: the guest may write the table from now on; all above know."""
    emit_sp(kvm, -1, Event.KVM_MMU_UNSYNC_PAGE, sp, 0)
    kvm.stat.mmu_unsync += 1
    sp.unsync = True
    mark_parents_unsync(kvm, sp)


def unsync_pages(kvm: KvmPtr, gfn: gfn_t, can_unsync: cython.bint, prefetch: cython.bint) -> cython.int:
    """mmu_try_to_unsync_pages: may `gfn` become writable? 0, or -1 when it must stay write-protected.

    A write-tracked gfn never (it holds an upper-level table). A shadowed level-1 table yes, its pages go
    unsync - but not while syncing (`can_unsync` False: the guest's flush is not complete yet), and not for a
    mere prefetch.
    """
    sp: ShadowPagePtr = first_with_gptes(kvm, gfn)
    while sp != cython.NULL:
        if not can_unsync:
            return -1
        if not sp.unsync:
            if prefetch:
                return -1
            if role_level(sp.role) != 1:
                warn(kvm, Bug.BUG_UNSYNC_UPPER_LEVEL)
                return -1
            unsync_page(kvm, sp)
        sp = next_with_gptes(kvm, sp.index_next, gfn)
    return 0
