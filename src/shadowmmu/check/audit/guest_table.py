# SPDX-License-Identifier: GPL-2.0-only
"""A guest's table read as the manuals say, for a shadow page of it: where its entries lie, and what each asks for.

The engine's own readings of entries are not used: an error in them must not excuse itself.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Access, Role, RoleShift, role_access, role_level
from cython.cimports.shadowmmu.engine.arena.state import (
    ENTRIES,
    PAGE_SHIFT,
    GuestFormat,
    HvaFlag,
    KvmPtr,
    MemSlotPtr,
    ShadowPagePtr,
    SlotFlag,
    gfn_t,
    gpa_t,
    p_u32,
    p_u64,
    pages_per_hpage,
    pfn_memory,
    u64,
)
from cython.cimports.shadowmmu.engine.memory.memslots import host_mapping, memslot_for_role
from cython.cimports.shadowmmu.x86.ept import Ept
from cython.cimports.shadowmmu.x86.pte import Pte, PteShift


def find_guest_table(kvm: KvmPtr, sp: ShadowPagePtr, table: GuestTablePtr) -> cython.void:
    """The table behind `sp`, which is in a memslot and present in the host, or not to be seen."""
    slot: MemSlotPtr = memslot_for_role(kvm, sp.role, sp.gfn)
    mapping: u64 = host_mapping(kvm, slot, sp.gfn) if slot != cython.NULL else 0
    table.memory = pfn_memory(kvm, mapping >> PAGE_SHIFT) if mapping & HvaFlag.HVA_PRESENT else cython.NULL
    table.address = sp.gfn << PAGE_SHIFT
    table.readonly = slot != cython.NULL and slot.flags & SlotFlag.SLOT_READONLY != 0
    table.format = GuestFormat.FORMAT_EPT if kvm.ept else GuestFormat.FORMAT_PT64
    if sp.role & Role.HAS_4_BYTE_GPTE:
        table.format = GuestFormat.FORMAT_PT32


@cython.cfunc
@cython.exceptval(check=False)
def guest_index(table: GuestTablePtr, sp: ShadowPagePtr, index: cython.int) -> cython.int:
    """Which entry of the guest's. Of a 4-byte table's 1024, two shadow entries stand for one of a directory, one for one of a table."""
    if table.format != GuestFormat.FORMAT_PT32:
        return index
    quadrant: cython.int = (sp.role & Role.QUADRANT) >> RoleShift.QUADRANT_SHIFT
    return (quadrant * ENTRIES + index) >> (role_level(sp.role) - 1)


def guest_entry_address(table: GuestTablePtr, sp: ShadowPagePtr, index: cython.int) -> gpa_t:
    """Where the guest's entry behind shadow entry `index` lies."""
    return table.address + guest_index(table, sp, index) * (4 if table.format == GuestFormat.FORMAT_PT32 else 8)


def guest_entry(table: GuestTablePtr, sp: ShadowPagePtr, index: cython.int) -> u64:
    """The guest's entry behind shadow entry `index`."""
    if table.format == GuestFormat.FORMAT_PT32:
        return cython.cast(p_u32, table.memory)[guest_index(table, sp, index)]
    return cython.cast(p_u64, table.memory)[index]


def table_named(table: GuestTablePtr, gpte: u64) -> gfn_t:
    """The table that an entry leads to."""
    return (gpte & (Pte.ADDR32 if table.format == GuestFormat.FORMAT_PT32 else Pte.ADDR)) >> PAGE_SHIFT


def page_named(table: GuestTablePtr, sp: ShadowPagePtr, index: cython.int, gpte: u64) -> gfn_t:
    """What a leaf maps at the shadow entry. A 4 MB page has two halves, and bits 32-35 of its address in bits 13-16."""
    level: cython.int = role_level(sp.role)
    gfn: gfn_t = table_named(table, gpte)
    if table.format != GuestFormat.FORMAT_PT32 or level == 1:
        return gfn & ~(pages_per_hpage(level) - 1)
    high: gfn_t = (gpte & Pte.PSE36_MASK) << PteShift.PSE36 >> PAGE_SHIFT
    return high + (gfn & ~(2 * pages_per_hpage(2) - 1)) + (index & 1) * pages_per_hpage(2)


def maps_page(table: GuestTablePtr, sp: ShadowPagePtr, gpte: u64) -> cython.bint:
    """The entry is a leaf, if bit 7 means what it says; with CR4.PSE off it means nothing in a 4-byte directory."""
    return role_level(sp.role) == 1 or (role_level(sp.role) <= 3 and gpte & Pte.PAGE_SIZE != 0)


def is_there(table: GuestTablePtr, gpte: u64) -> cython.bint:
    """The entry is present: of an EPT's if it gives any right."""
    return gpte & (cython.cast(u64, Ept.RWX) if table.format == GuestFormat.FORMAT_EPT else cython.cast(u64, Pte.PRESENT)) != 0


def rights_given(table: GuestTablePtr, gpte: u64) -> cython.int:
    """The rights of one entry alone, as Access bits. EPT: to be read stands for USER."""
    rights: cython.int = 0
    if table.format == GuestFormat.FORMAT_EPT:
        rights |= Access.USER if gpte & Ept.READ else 0
        rights |= Access.WRITE if gpte & Ept.WRITE else 0
        return rights | (Access.EXEC if gpte & Ept.EXEC else 0)
    rights |= Access.USER if gpte & Pte.USER else 0
    rights |= Access.WRITE if gpte & Pte.WRITABLE else 0
    return rights | (0 if table.format == GuestFormat.FORMAT_PT64 and gpte & Pte.NX else Access.EXEC)


def page_rights(table: GuestTablePtr, sp: ShadowPagePtr, gpte: u64) -> cython.int:
    """The rights that a leaf gives below `sp`; to write only with D, where tables have it."""
    rights: cython.int = role_access(sp.role) & rights_given(table, gpte)
    dirty: u64 = Pte.DIRTY
    if table.format == GuestFormat.FORMAT_EPT:
        dirty = Ept.DIRTY
    if not sp.role & Role.AD_DISABLED and not table.readonly and not gpte & dirty:
        rights &= ~cython.cast(cython.int, Access.WRITE)
    return rights
