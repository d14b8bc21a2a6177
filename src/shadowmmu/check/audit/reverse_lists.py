# SPDX-License-Identifier: GPL-2.0-only
"""I1 and I2, first halves: what rmaps and parent_ptes name. The second, that every entry is named, is decided in `tables`."""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Role, role_as_id, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_last, is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    ADDRESS_SPACES,
    MAX_SLOTS,
    MemSlotPtr,
    ShadowPagePtr,
    p_spte,
    p_u64,
    spte_index,
    to_shadow_page,
    u64,
)
from cython.cimports.shadowmmu.engine.memory.memslots import slot_shift
from cython.cimports.shadowmmu.engine.memory.pte_list import PteListIter, pte_list_first, pte_list_next
from cython.cimports.shadowmmu.engine.memory.rmap import sp_gfn_of


def validate_rmaps(auditor: Auditor) -> None:
    """I1: what an rmap names is a present leaf of that gfn, level and address space, once."""
    as_id: cython.int
    i: cython.int
    for as_id in range(ADDRESS_SPACES):
        for i in range(MAX_SLOTS):
            if auditor.kvm.slots[as_id][i].npages:
                validate_slot_rmaps(auditor, cython.address(auditor.kvm.slots[as_id][i]))


@cython.cfunc
def validate_slot_rmaps(auditor: Auditor, slot: MemSlotPtr) -> object:
    """I1: the rmaps of one memslot, of all levels."""
    level: cython.int
    for level in range(1, 4):
        shift: cython.int = slot_shift(level)
        heads: p_u64 = slot.rmap[level - 1]
        first: u64 = slot.base_gfn >> shift
        count: u64 = ((slot.base_gfn + slot.npages - 1) >> shift) - first + 1
        n: u64 = next_used(heads, 0, count, 0)
        while n < count:
            validate_rmap(auditor, slot, level, first + n, heads[n])
            n = next_used(heads, n + 1, count, 0)
    return None


@cython.cfunc
def validate_rmap(auditor: Auditor, slot: MemSlotPtr, level: cython.int, number: u64, head: u64) -> object:
    """I1: one rmap, of page `number` of the level's size. I14: its descriptors are its own."""
    it: PteListIter
    sptep: p_spte = pte_list_first(head, cython.address(it))
    while sptep != cython.NULL:
        sp: ShadowPagePtr = auditor.owner(sptep)
        if sp == cython.NULL:
            auditor.say("I1", f"the {rmap_name(level, number)} names an entry in no live table")
            return None
        index: cython.int = spte_index(sptep)
        right: cython.bint = is_present(sptep[0]) and is_last(sptep[0], level) and role_level(sp.role) == level
        if not right or sp_gfn_of(sp, index) >> slot_shift(level) != number or role_as_id(sp.role) != slot.as_id:
            auditor.say("I1", f"the {rmap_name(level, number)} names {auditor.entry_name(sp, index)}")
        if not auditor.mark(sp, index):
            auditor.say("I1", f"the {rmap_name(level, number)} names {auditor.entry_name(sp, index)}, which is in a reverse list already")
        if it.pos == 0 and not auditor.claim(it.desc):
            auditor.say("I14", f"the {rmap_name(level, number)} has a descriptor that is not its own")
            return None
        sptep = pte_list_next(cython.address(it))
    return None


@cython.cfunc
def rmap_name(level: cython.int, number: u64) -> object:
    return f"rmap of gfn {number << slot_shift(level):#x} level {level}"


def validate_parents(auditor: Auditor) -> None:
    """I2: what parent_ptes names is a present link to this page, once. I17: an invalid page has none."""
    i: u64
    for i in range(auditor.nlive):
        if auditor.live[i].parent_ptes:
            validate_parents_of(auditor, auditor.live[i])


@cython.cfunc
def validate_parents_of(auditor: Auditor, sp: ShadowPagePtr) -> object:
    """I2, I17: the parent_ptes of one page. I14: its descriptors are its own."""
    if sp.role & Role.INVALID:
        auditor.say("I17", f"invalid {auditor.page_name(sp)} is linked")
    it: PteListIter
    sptep: p_spte = pte_list_first(sp.parent_ptes, cython.address(it))
    while sptep != cython.NULL:
        parent: ShadowPagePtr = auditor.owner(sptep)
        if parent == cython.NULL:
            auditor.say("I2", f"parent_ptes of {auditor.page_name(sp)} names an entry in no live table")
            return None
        index: cython.int = spte_index(sptep)
        leaf: cython.bint = not is_present(sptep[0]) or is_last(sptep[0], role_level(parent.role))
        if leaf or to_shadow_page(auditor.kvm, sptep[0]) != sp:
            auditor.say("I2", f"parent_ptes of {auditor.page_name(sp)} names {auditor.entry_name(parent, index)}")
        if not auditor.mark(parent, index):
            name: object = auditor.entry_name(parent, index)
            auditor.say("I2", f"parent_ptes of {auditor.page_name(sp)} names {name}, which is in a reverse list already")
        if it.pos == 0 and not auditor.claim(it.desc):
            auditor.say("I14", f"parent_ptes of {auditor.page_name(sp)} has a descriptor that is not its own")
            return None
        sptep = pte_list_next(cython.address(it))
    return None
