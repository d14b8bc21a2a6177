# SPDX-License-Identifier: GPL-2.0-only
"""Only if `strict`: I9 and I16 where Linux itself does not keep to them, and so neither does the engine.

They speak of what an entry remembers, against what the guest's tables, the memslots and the dirty log say now. They hold
if nobody but the guest stores to its tables.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.role import role_as_id, role_level
from cython.cimports.shadowmmu.engine.arena.spte import (
    is_last,
    is_mmio_spte,
    is_present,
    is_writable,
    mmio_gen,
    mmio_spte_gen,
    mmio_spte_gfn,
    spte_pfn,
)
from cython.cimports.shadowmmu.engine.arena.state import (
    ENTRIES,
    PAGE_SHIFT,
    KvmPtr,
    MemSlotPtr,
    ShadowPagePtr,
    SlotFlag,
    gfn_t,
    pages_per_hpage,
    spte_t,
    u64,
)
from cython.cimports.shadowmmu.engine.memory.memslots import host_mapping, memslot_for_role
from cython.cimports.shadowmmu.engine.memory.rmap import sp_access_of, sp_gfn_of
from cython.cimports.shadowmmu.engine.pages.pages import is_obsolete


def validate_strictly(auditor: Auditor) -> None:
    """I9, I16, strictly: every entry of every page that is in use."""
    i: u64
    for i in range(auditor.nlive):
        sp: ShadowPagePtr = auditor.live[i]
        if sp.special or is_obsolete(auditor.kvm, sp):
            continue
        index: u64 = next_used(sp.spt, 0, ENTRIES, sp.nothing)
        while index < ENTRIES:
            validate_memory(auditor, sp, index)
            index = next_used(sp.spt, index + 1, ENTRIES, sp.nothing)


@cython.cfunc
def validate_memory(auditor: Auditor, sp: ShadowPagePtr, index: cython.int) -> object:
    """One entry: a leaf that follows a guest's entry, or a mark."""
    spte: spte_t = sp.spt[index]
    if not is_present(spte):
        if is_mmio_spte(auditor.kvm, spte):
            validate_mark(auditor, sp, index)
    elif is_last(spte, role_level(sp.role)):
        if sp.unsync:
            validate_recorded_gfn(auditor, sp, index)
        if role_level(sp.role) > 1 and is_writable(spte):
            validate_logged(auditor, sp, index)
    return None


@cython.cfunc
def validate_logged(auditor: Auditor, sp: ShadowPagePtr, index: cython.int) -> object:
    """I9: a large page is not writable while one of its pages is logged as clean."""
    gfn: gfn_t = sp_gfn_of(sp, index)
    slot: MemSlotPtr = memslot_for_role(auditor.kvm, sp.role, gfn)
    if slot == cython.NULL or not slot.flags & SlotFlag.SLOT_LOG_DIRTY:
        return None
    page: u64
    first: u64 = gfn - slot.base_gfn
    for page in range(first, first + pages_per_hpage(role_level(sp.role))):
        if not slot.dirty_bitmap[page >> 6] >> (page & 63) & 1:
            auditor.say("I9", f"large {auditor.entry_name(sp, index)} is writable, page {page:#x} of the slot is logged as clean")
            return None
    return None


@cython.cfunc
def validate_mark(auditor: Auditor, sp: ShadowPagePtr, index: cython.int) -> object:
    """I16: an MMIO mark of the present generation names a gfn without a memslot."""
    kvm: KvmPtr = auditor.kvm
    gfn: gfn_t = mmio_spte_gfn(kvm, sp.spt[index])
    now: u64 = mmio_gen(kvm, role_as_id(sp.role))
    if mmio_spte_gen(kvm, sp.spt[index]) == now and memslot_for_role(kvm, sp.role, gfn) != cython.NULL:
        auditor.say("I16", f"{auditor.entry_name(sp, index)} marks gfn {gfn:#x} as MMIO, which is in a memslot")
    return None


@cython.cfunc
def validate_recorded_gfn(auditor: Auditor, sp: ShadowPagePtr, index: cython.int) -> object:
    """I9: of a leaf of an unsync table, which may be older than the guest's entry, the frame or the rights tell.

    What is recorded for a table in sync is checked always (`guest_entries`).
    """
    table: GuestTable
    find_guest_table(auditor.kvm, sp, cython.address(table))
    if table.memory == cython.NULL:
        return None
    gpte: u64 = guest_entry(cython.address(table), sp, index)
    gfn: gfn_t = page_named(cython.address(table), sp, index, gpte)
    if sp_gfn_of(sp, index) != gfn and is_made_of(auditor.kvm, sp, index, gfn, page_rights(cython.address(table), sp, gpte)):
        recorded: gfn_t = sp_gfn_of(sp, index)
        auditor.say("I9", f"{auditor.entry_name(sp, index)} is recorded for gfn {recorded:#x}, the guest's entry names {gfn:#x}")
    return None


@cython.cfunc
@cython.exceptval(check=False)
def is_made_of(kvm: KvmPtr, sp: ShadowPagePtr, index: cython.int, gfn: gfn_t, rights: cython.int) -> cython.bint:
    """The leaf has the frame and the rights that the guest's entry gives now."""
    slot: MemSlotPtr = memslot_for_role(kvm, sp.role, gfn)
    if slot == cython.NULL or host_mapping(kvm, slot, gfn) >> PAGE_SHIFT != spte_pfn(sp.spt[index]):
        return False
    return sp_access_of(sp, index) == rights
