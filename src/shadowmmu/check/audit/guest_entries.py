# SPDX-License-Identifier: GPL-2.0-only
"""I10 and I9 against the guest: while a page is in sync its entries say what the guest's own entries say.

A link leads to the page of the table that the guest's entry names, in the role that follows from parent and entry; a leaf
maps what the guest's entry maps, with no right that it does not give. What the guest has not been told of is excused: an
entry that was stored to from outside the VM (`Auditor.untold`) may be an older one's until the guest stores to it itself.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Access, Role, has_gptes, role_access, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_last, is_mmio_spte, is_present, mmio_spte_gfn
from cython.cimports.shadowmmu.engine.arena.state import (
    ENTRIES,
    MemSlotPtr,
    ShadowPagePtr,
    gfn_t,
    p_spte,
    spte_t,
    sptep_to_sp,
    to_shadow_page,
    u64,
)
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_rmap, memslot_for_role
from cython.cimports.shadowmmu.engine.memory.pte_list import PteListIter, pte_list_first, pte_list_next
from cython.cimports.shadowmmu.engine.memory.rmap import sp_access_of, sp_gfn_of
from cython.cimports.shadowmmu.engine.pages.pages import is_obsolete

_RIGHTS = ("---", "--x", "w--", "w-x", "-u-", "-ux", "wu-", "wux")


def validate_guest_entries(auditor: Auditor) -> None:
    """I9, I10: each page that shadows a guest table and is in sync with it."""
    table: GuestTable
    i: u64
    for i in range(auditor.nlive):
        sp: ShadowPagePtr = auditor.live[i]
        if sp.special or sp.unsync or not has_gptes(sp.role) or is_obsolete(auditor.kvm, sp):
            continue
        find_guest_table(auditor.kvm, sp, cython.address(table))
        if table.memory == cython.NULL:
            continue
        index: u64 = next_entry(auditor, sp, 0)
        while index < ENTRIES:
            if sp.spt[index] != sp.nothing:
                validate_entry(auditor, sp, index, cython.address(table))
            index = next_entry(auditor, sp, index + 1)


@cython.cfunc
def validate_entry(auditor: Auditor, sp: ShadowPagePtr, index: cython.int, table: GuestTablePtr) -> object:
    """One shadow entry against the guest's."""
    spte: spte_t = sp.spt[index]
    gpte: u64 = guest_entry(table, sp, index)
    if not is_present(spte):
        gfn: gfn_t = mmio_spte_gfn(auditor.kvm, spte)
        if is_mmio_spte(auditor.kvm, spte) and not (is_there(table, gpte) and gfn == page_named(table, sp, index, gpte)):
            tell(auditor, "I10", sp, index, table, f"marks gfn {gfn:#x}")
    elif is_last(spte, role_level(sp.role)):
        validate_leaf(auditor, sp, index, table, gpte)
    else:
        child: ShadowPagePtr = to_shadow_page(auditor.kvm, spte)
        if child != cython.NULL and child.live and not follows(sp, index, table, gpte, child):  # else I11
            tell(auditor, "I10", sp, index, table, f"leads to {auditor.page_name(child)}")
    return None


@cython.cfunc
def validate_leaf(auditor: Auditor, sp: ShadowPagePtr, index: cython.int, table: GuestTablePtr, gpte: u64) -> object:
    """I9: recorded for what the guest's entry maps, with rights that it gives."""
    gfn: gfn_t = sp_gfn_of(sp, index)
    if not is_there(table, gpte) or not maps_page(table, sp, gpte) or gfn != page_named(table, sp, index, gpte):
        return tell(auditor, "I9", sp, index, table, f"is recorded for gfn {gfn:#x}")
    rights: cython.int = sp_access_of(sp, index)
    if not are_given(sp, rights, page_rights(table, sp, gpte)):
        tell(auditor, "I9", sp, index, table, f"has the rights {_RIGHTS[rights]}")
    return None


@cython.cfunc
@cython.exceptval(check=False)
def follows(sp: ShadowPagePtr, index: cython.int, table: GuestTablePtr, gpte: u64, child: ShadowPagePtr) -> cython.bint:
    """The page below is of the guest's next table, or of a part of the large page that the entry maps."""
    if not is_there(table, gpte):
        return False
    if child.role & Role.DIRECT:
        given: cython.int = page_rights(table, sp, gpte)
        named: gfn_t = page_named(table, sp, index, gpte)
        return maps_page(table, sp, gpte) and child.gfn == named and are_given(sp, role_access(child.role), given)
    # Bit 7 of a 4-byte directory's entry may have been read with CR4.PSE off.
    wants_table: cython.bint = not maps_page(table, sp, gpte) or sp.role & Role.HAS_4_BYTE_GPTE != 0
    right: cython.bint = role_access(child.role) == role_access(sp.role) & rights_given(table, gpte)
    return wants_table and right and child.gfn == table_named(table, gpte)


@cython.cfunc
@cython.exceptval(check=False)
def are_given(sp: ShadowPagePtr, rights: cython.int, given: cython.int) -> cython.bint:
    """No right but those given. Without CR0.WP the supervisor writes everywhere: such a page is writable, and not the user's."""
    if not sp.role & Role.CR0_WP and rights & Access.WRITE and not rights & Access.USER:
        given |= Access.WRITE
    return not rights & ~given


@cython.cfunc
def tell(auditor: Auditor, rule: object, sp: ShadowPagePtr, index: cython.int, table: GuestTablePtr, does: object) -> object:
    """A violation, but for an entry that was stored to from outside, or by a guest that Linux itself lets do so."""
    at: u64 = guest_entry_address(table, sp, index)
    if at in auditor.untold or (not auditor.strict and is_unguarded(auditor, sp)):
        auditor.excused += 1
    else:
        auditor.say(rule, f"{auditor.entry_name(sp, index)} {does}, the guest's entry at {at:#x} is {guest_entry(table, sp, index):#x}")
    return None


@cython.cfunc
@cython.exceptval(check=False)
def is_unguarded(auditor: Auditor, sp: ShadowPagePtr) -> cython.bint:
    """An entry made of an MMIO mark lets the guest write the table, or did (what I8 says only strictly)."""
    slot: MemSlotPtr = memslot_for_role(auditor.kvm, sp.role, sp.gfn)
    it: PteListIter
    sptep: p_spte = pte_list_first(gfn_to_rmap(slot, sp.gfn, 1)[0], cython.address(it))
    while sptep != cython.NULL:
        if sptep_to_sp(auditor.kvm, sptep).unchecked:
            return True
        sptep = pte_list_next(cython.address(it))
    return False
