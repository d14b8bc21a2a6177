# SPDX-License-Identifier: GPL-2.0-only
"""Only if `strict`: I9 and I16 where Linux 6.1 itself does not keep to them, and so neither does the engine.

They speak of what an entry remembers, against what the guest's tables, the memslots and the dirty log say now. They hold
if nobody but the guest stores to its tables.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Access, Role, RoleShift, has_gptes, role_access, role_as_id, role_level
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
    GuestFormat,
    HvaFlag,
    KvmPtr,
    MemSlotPtr,
    ShadowPagePtr,
    SlotFlag,
    gfn_t,
    p_u32,
    p_u64,
    pages_per_hpage,
    pfn_memory,
    spte_t,
    u64,
)
from cython.cimports.shadowmmu.engine.guest.walker import dirty_bit, gpte_access
from cython.cimports.shadowmmu.engine.memory.memslots import host_mapping, memslot_for_role
from cython.cimports.shadowmmu.engine.memory.rmap import sp_access_of, sp_gfn_of
from cython.cimports.shadowmmu.engine.pages.pages import is_obsolete
from cython.cimports.shadowmmu.x86.pte import Pte, PteShift


def validate_strictly(auditor: Auditor) -> None:
    """I9, I16, strictly: every entry of every page that is in use."""
    i: u64
    for i in range(auditor.nlive):
        sp: ShadowPagePtr = auditor.live[i]
        if sp.special or is_obsolete(auditor.kvm, sp):
            continue
        index: u64 = next_used(sp.spt, 0, ENTRIES)
        while index < ENTRIES:
            validate_memory(auditor, sp, index)
            index = next_used(sp.spt, index + 1, ENTRIES)


@cython.cfunc
def validate_memory(auditor: Auditor, sp: ShadowPagePtr, index: cython.int) -> object:
    """One entry: a leaf that follows a guest's entry, or a mark."""
    spte: spte_t = sp.spt[index]
    if not is_present(spte):
        if is_mmio_spte(auditor.kvm, spte):
            validate_mark(auditor, sp, index)
    elif is_last(spte, role_level(sp.role)):
        if has_gptes(sp.role):
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
    """I9: the gfn recorded for a leaf is the one that the guest's entry names.

    A leaf of an unsync table may be older than the guest's entry; then its frame or its rights tell.
    """
    gpte: u64 = 0
    if not read_guest_entry(auditor.kvm, sp, index, cython.address(gpte)):
        return None
    gfn: gfn_t = gfn_named(sp, index, gpte)
    if sp_gfn_of(sp, index) != gfn and (not sp.unsync or is_made_of(auditor.kvm, sp, index, gpte)):
        recorded: gfn_t = sp_gfn_of(sp, index)
        auditor.say("I9", f"{auditor.entry_name(sp, index)} is recorded for gfn {recorded:#x}, the guest's entry names {gfn:#x}")
    return None


@cython.cfunc
@cython.exceptval(check=False)
def is_made_of(kvm: KvmPtr, sp: ShadowPagePtr, index: cython.int, gpte: u64) -> cython.bint:
    """The leaf has the frame and the rights that the guest's entry gives now."""
    gfn: gfn_t = gfn_named(sp, index, gpte)
    slot: MemSlotPtr = memslot_for_role(kvm, sp.role, gfn)
    if slot == cython.NULL or host_mapping(kvm, slot, gfn) >> PAGE_SHIFT != spte_pfn(sp.spt[index]):
        return False
    format: GuestFormat = GuestFormat.FORMAT_EPT if kvm.ept else GuestFormat.FORMAT_PT64
    if sp.role & Role.HAS_4_BYTE_GPTE:
        format = GuestFormat.FORMAT_PT32
    access: cython.int = gpte_access(format, gpte)
    if not sp.role & Role.AD_DISABLED and not gpte & dirty_bit(format):
        access &= ~cython.cast(cython.int, Access.WRITE)
    return sp_access_of(sp, index) == role_access(sp.role) & access


@cython.cfunc
@cython.exceptval(check=False)
def read_guest_entry(kvm: KvmPtr, sp: ShadowPagePtr, index: cython.int, gpte: p_u64) -> cython.bint:
    """The guest's entry behind entry `index`, as memory has it now. False: it is in no memory."""
    slot: MemSlotPtr = memslot_for_role(kvm, sp.role, sp.gfn)
    mapping: u64 = host_mapping(kvm, slot, sp.gfn) if slot != cython.NULL else 0
    if not mapping & HvaFlag.HVA_PRESENT:
        return False
    if sp.role & Role.HAS_4_BYTE_GPTE:
        gpte[0] = cython.cast(p_u32, pfn_memory(kvm, mapping >> PAGE_SHIFT))[four_byte_index(sp.role, index)]
    else:
        gpte[0] = cython.cast(p_u64, pfn_memory(kvm, mapping >> PAGE_SHIFT))[index]
    return True


@cython.cfunc
@cython.exceptval(check=False)
def four_byte_index(role: u64, index: cython.int) -> cython.int:
    """Which of a 4-byte table's 1024 entries: two shadow entries stand for one of a directory, one for one of a table."""
    quadrant: cython.int = (role & Role.QUADRANT) >> RoleShift.QUADRANT_SHIFT
    return (quadrant * ENTRIES + index) >> (role_level(role) - 1)


@cython.cfunc
@cython.exceptval(check=False)
def gfn_named(sp: ShadowPagePtr, index: cython.int, gpte: u64) -> gfn_t:
    """What a guest's leaf maps at the shadow entry. A 4 MB page has two halves, and bits 32-35 of its address in bits 13-16."""
    level: cython.int = role_level(sp.role)
    if not sp.role & Role.HAS_4_BYTE_GPTE:
        return (gpte & Pte.ADDR) >> PAGE_SHIFT & ~(pages_per_hpage(level) - 1)
    gfn: gfn_t = (gpte & Pte.ADDR32) >> PAGE_SHIFT
    if level == 1:
        return gfn
    high: gfn_t = (gpte & Pte.PSE36_MASK) << PteShift.PSE36 >> PAGE_SHIFT
    return high + (gfn & ~(2 * pages_per_hpage(2) - 1)) + (index & 1) * pages_per_hpage(2)
