# SPDX-License-Identifier: GPL-2.0-only
"""I6, and I7 of unsync pages: the marks on the way down to pages that the guest may write."""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Role, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_last, is_present
from cython.cimports.shadowmmu.engine.arena.state import ENTRIES, KvmPtr, ShadowPagePtr, p_spte, spte_index, to_shadow_page, u64
from cython.cimports.shadowmmu.engine.memory.memslots import is_write_tracked
from cython.cimports.shadowmmu.engine.memory.pte_list import PteListIter, pte_list_first, pte_list_next


def validate_unsync(auditor: Auditor) -> None:
    """I6: only a level-1 table of the guest is ever unsync, and all above know. I7: the unsync pages are counted."""
    total: u64 = 0
    i: u64
    for i in range(auditor.nlive):
        sp: ShadowPagePtr = auditor.live[i]
        validate_bitmap(auditor, sp)
        if sp.unsync:
            total += 1
            if role_level(sp.role) != 1 or sp.role & Role.DIRECT:
                auditor.say("I6", f"{auditor.page_name(sp)} is unsync and cannot be")
            elif is_write_tracked(auditor.kvm, sp.gfn):
                auditor.say("I6", f"{auditor.page_name(sp)} is unsync, and its gfn holds an upper-level table")
        if sp.unsync or sp.unsync_children:
            validate_ancestors(auditor, sp)
    if total != auditor.kvm.stat.mmu_unsync:
        auditor.say("I7", f"{total} pages are unsync, {auditor.kvm.stat.mmu_unsync} are counted")


@cython.cfunc
def validate_bitmap(auditor: Auditor, sp: ShadowPagePtr) -> object:
    """I6: the count of unsync children is the number of bits set."""
    bits: cython.uint = 0
    i: cython.int
    for i in range(ENTRIES // 64):
        word: u64 = sp.unsync_child_bitmap[i]
        while word:
            word &= word - 1
            bits += 1
    if bits != sp.unsync_children:
        auditor.say("I6", f"{auditor.page_name(sp)} counts {sp.unsync_children} unsync children and marks {bits}")
    return None


@cython.cfunc
def validate_ancestors(auditor: Auditor, sp: ShadowPagePtr) -> object:
    """I6: each parent of a page that is unsync, or has such a page below, marks the entry that leads there."""
    it: PteListIter
    sptep: p_spte = pte_list_first(sp.parent_ptes, cython.address(it))
    while sptep != cython.NULL:
        parent: ShadowPagePtr = auditor.owner(sptep)
        index: cython.int = spte_index(sptep)
        marked: cython.bint = parent == cython.NULL or parent.unsync_child_bitmap[index >> 6] >> (index & 63) & 1
        # Marks below may be stale; only a real unsync page must be known above.
        if not marked and has_unsync(auditor.kvm, sp):
            name: object = auditor.entry_name(parent, index)
            auditor.say("I6", f"{name} does not mark that {auditor.page_name(sp)} is unsync or has such children")
        sptep = pte_list_next(cython.address(it))
    return None


@cython.cfunc
@cython.exceptval(check=False)
def has_unsync(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.bint:
    """The page is unsync, or one below it is."""
    if sp.unsync:
        return True
    level: cython.int = role_level(sp.role)
    if level == 1 or not sp.unsync_children:
        return False
    i: u64 = next_used(sp.spt, 0, ENTRIES, sp.nothing)
    while i < ENTRIES:
        if is_present(sp.spt[i]) and not is_last(sp.spt[i], level) and has_unsync(kvm, to_shadow_page(kvm, sp.spt[i])):
            return True
        i = next_used(sp.spt, i + 1, ENTRIES, sp.nothing)
    return False
