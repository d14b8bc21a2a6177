# SPDX-License-Identifier: GPL-2.0-only
"""I7: indirect_shadow_pages, write tracking and the causes against large pages are what the pages make them.

Inline in the .pxd, since it looks at every page of every memslot: `next_tracked`.
"""

import cython
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.shadowmmu.engine.arena.role import Role, has_gptes, role_as_id, role_level
from cython.cimports.shadowmmu.engine.arena.state import (
    ADDRESS_SPACES,
    MAX_SLOTS,
    KvmPtr,
    MemSlotPtr,
    ShadowPagePtr,
    gfn_t,
    pages_per_hpage,
    u64,
)
from cython.cimports.shadowmmu.engine.memory.memslots import slot_shift
from cython.cimports.shadowmmu.engine.pages.page_index import index_bucket


def validate_accounting(auditor: Auditor) -> None:
    """I7: the count of pages that shadow guest tables, then, thoroughly, what each memslot counts."""
    kvm: KvmPtr = auditor.kvm
    indirect: u64 = 0
    i: u64
    for i in range(auditor.nlive):
        indirect += is_counted(auditor.live[i])
    if indirect != kvm.indirect_shadow_pages:
        auditor.say("I7", f"{indirect} pages shadow guest tables, {kvm.indirect_shadow_pages} are counted")
    if auditor.thorough:
        validate_slots(auditor)


@cython.cfunc
def validate_slots(auditor: Auditor) -> object:
    """I7: what each memslot counts."""
    kvm: KvmPtr = auditor.kvm
    as_id: cython.int
    n: cython.int
    level: cython.int
    for as_id in range(ADDRESS_SPACES):
        for n in range(MAX_SLOTS):
            if kvm.slots[as_id][n].npages:
                validate_tracking(auditor, cython.address(kvm.slots[as_id][n]))
                for level in range(2, 4):
                    validate_causes(auditor, cython.address(kvm.slots[as_id][n]), level)
    return None


@cython.cfunc
@cython.exceptval(check=False)
def is_counted(sp: ShadowPagePtr) -> cython.bint:
    """A page that shadows a guest table, and has not been zapped."""
    return not sp.special and not sp.role & Role.INVALID and has_gptes(sp.role)


@cython.cfunc
@cython.exceptval(check=False)
def in_slot(slot: MemSlotPtr, sp: ShadowPagePtr) -> cython.bint:
    """The guest table that the page shadows lies in this memslot."""
    return role_as_id(sp.role) == slot.as_id and sp.gfn - slot.base_gfn < slot.npages


@cython.cfunc
@cython.exceptval(check=False)
def upper_tables(kvm: KvmPtr, as_id: cython.int, gfn: gfn_t) -> cython.int:
    """How many pages shadow the guest table at `gfn` above level 1: those are never unsync, so its writes are tracked."""
    count: cython.int = 0
    sp: ShadowPagePtr = index_bucket(kvm, gfn)[0]
    while sp != cython.NULL:
        count += sp.gfn == gfn and role_as_id(sp.role) == as_id and role_level(sp.role) > 1 and is_counted(sp)
        sp = sp.index_next
    return count


@cython.cfunc
def validate_tracking(auditor: Auditor, slot: MemSlotPtr) -> object:
    """I7: each gfn's write-tracking count is the number of upper-level tables in it."""
    n: u64 = next_tracked(slot.gfn_write_track, 0, slot.npages)
    while n < slot.npages:
        if slot.gfn_write_track[n] != upper_tables(auditor.kvm, slot.as_id, slot.base_gfn + n):
            auditor.say("I7", f"gfn {slot.base_gfn + n:#x} has write-tracking count {slot.gfn_write_track[n]}")
        n = next_tracked(slot.gfn_write_track, n + 1, slot.npages)
    for n in range(auditor.nlive):
        sp: ShadowPagePtr = auditor.live[n]
        if is_counted(sp) and role_level(sp.role) > 1 and in_slot(slot, sp) and not slot.gfn_write_track[sp.gfn - slot.base_gfn]:
            auditor.say("I7", f"gfn {sp.gfn:#x} holds an upper-level table and is not write-tracked")
    return None


@cython.cfunc
def validate_causes(auditor: Auditor, slot: MemSlotPtr, level: cython.int) -> object:
    """I7: the causes against each large page of `level` are the tables in it, and one for where the slot cannot have it."""
    shift: cython.int = slot_shift(level)
    first: u64 = slot.base_gfn >> shift
    count: u64 = ((slot.base_gfn + slot.npages - 1) >> shift) - first + 1
    due: cython.p_int = cython.cast(cython.pointer(cython.int), calloc(count, cython.sizeof(cython.int)))
    if due == cython.NULL:
        raise MemoryError(f"no memory to audit a memslot of {slot.npages} pages")
    n: u64
    for n in range(auditor.nlive):
        if is_counted(auditor.live[n]) and in_slot(slot, auditor.live[n]):
            due[(auditor.live[n].gfn >> shift) - first] += 1
    for n in range(count):
        said: cython.int = slot.disallow_lpage[level - 2][n]
        exist: cython.int = due[n] + edge_cause(slot, level, n, count)
        if said != exist:
            auditor.say("I7", f"large page {(first + n) << shift:#x} of level {level}: {said} causes against it, {exist} exist")
    free(due)
    return None


@cython.cfunc
@cython.exceptval(check=False)
def edge_cause(slot: MemSlotPtr, level: cython.int, n: u64, count: u64) -> cython.bint:
    """One for the head and the tail of the slot, and for all of one whose host address is aligned otherwise. Set, not added."""
    mask: u64 = pages_per_hpage(level) - 1
    skewed: cython.bint = ((slot.base_gfn ^ slot.hva) & mask) != 0
    head: cython.bint = n == 0 and (slot.base_gfn & mask) != 0
    tail: cython.bint = n == count - 1 and ((slot.base_gfn + slot.npages) & mask) != 0
    return skewed or head or tail
