# SPDX-License-Identifier: GPL-2.0-only
"""I1 and I2, second halves, I7 of leaves, I9, I10, I11, I16 and I17: every entry of every live table."""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Access, Role, child_role, role_access, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_last, is_mmio_spte, is_present, is_writable, spte_pfn
from cython.cimports.shadowmmu.engine.arena.state import (
    ENTRIES,
    PAGE_SHIFT,
    KvmPtr,
    ManualProtect,
    MemSlotPtr,
    ShadowPagePtr,
    SlotFlag,
    gfn_t,
    pages_per_hpage,
    role_t,
    spte_t,
    to_shadow_page,
    u64,
)
from cython.cimports.shadowmmu.engine.memory.memslots import host_mapping, lpage_info, memslot_for_role
from cython.cimports.shadowmmu.engine.memory.rmap import sp_access_of, sp_gfn_of
from cython.cimports.shadowmmu.x86.pte import Pte

from shadowmmu.engine.arena.role import describe_role


def validate_tables(auditor: Auditor) -> None:
    """I1, I2, I9, I10, I11, I16, I17: every entry in which there is something. I7: how many leaves there are."""
    kvm: KvmPtr = auditor.kvm
    splits: u64 = 0
    i: u64
    for i in range(auditor.nlive):
        sp: ShadowPagePtr = auditor.live[i]
        splits += sp.lpage_disallowed
        index: u64 = next_entry(auditor, sp, 0)
        while index < ENTRIES:
            if sp.spt[index] != sp.nothing:
                auditor.seen[(sp - kvm.pages) * WORDS + (index >> 6)] |= cython.cast(u64, 1) << (index & 63)
                validate_entry(auditor, sp, index)
            index = next_entry(auditor, sp, index + 1)
    validate_count(auditor, "leaves of 4K", auditor.leaves[1], kvm.stat.pages_4k)
    validate_count(auditor, "leaves of 2M", auditor.leaves[2], kvm.stat.pages_2m)
    validate_count(auditor, "leaves of 1G", auditor.leaves[3], kvm.stat.pages_1g)
    validate_count(auditor, "pages split for NX", splits, kvm.stat.nx_lpage_splits)


@cython.cfunc
def validate_count(auditor: Auditor, what: object, exist: u64, counted: u64) -> object:
    """I7: one of the statistics that say what there is now."""
    if exist != counted:
        auditor.say("I7", f"{exist} {what} exist, {counted} are counted")
    return None


@cython.cfunc
def validate_entry(auditor: Auditor, sp: ShadowPagePtr, index: cython.int) -> object:
    """I16: present, or an MMIO mark. I1, I2: if present, in one reverse list (a second naming is seen where lists are read)."""
    spte: spte_t = sp.spt[index]
    if not is_present(spte):
        if not is_mmio_spte(auditor.kvm, spte):
            auditor.say("I16", f"{auditor.entry_name(sp, index)} is neither present nor an MMIO mark")
        return None
    leaf: cython.bint = is_last(spte, role_level(sp.role))
    if not is_listed(auditor, sp, index):
        auditor.say("I1" if leaf else "I2", f"{auditor.entry_name(sp, index)} is in no reverse list")
    if leaf:
        return validate_leaf(auditor, sp, index)
    return validate_link(auditor, sp, index)


@cython.cfunc
def validate_leaf(auditor: Auditor, sp: ShadowPagePtr, index: cython.int) -> object:
    """I9: W only with MMU-writable, that only with host-writable; the frame of its gfn; PS in large ones alone. I16: no MMIO mark."""
    kvm: KvmPtr = auditor.kvm
    spte: spte_t = sp.spt[index]
    auditor.leaves[role_level(sp.role)] += 1
    if is_mmio_spte(kvm, spte) and not kvm.ept:
        auditor.say("I16", f"{auditor.entry_name(sp, index)} is an MMIO mark and present")
    if (is_writable(spte) and not spte & kvm.masks.mmu_writable) or (spte & kvm.masks.mmu_writable and not spte & kvm.masks.host_writable):
        auditor.say("I9", f"{auditor.entry_name(sp, index)} has W without MMU-writable, or that without host-writable")
    if rights_of(kvm, spte) & ~sp_access_of(sp, index):
        auditor.say("I9", f"{auditor.entry_name(sp, index)} allows more than the rights recorded for it, {sp_access_of(sp, index):#x}")
    gfn: gfn_t = sp_gfn_of(sp, index)
    slot: MemSlotPtr = memslot_for_role(kvm, sp.role, gfn)
    if slot == cython.NULL:
        auditor.say("I9", f"{auditor.entry_name(sp, index)} maps gfn {gfn:#x}, which is in no memslot")
        return None
    if spte_pfn(spte) != host_mapping(kvm, slot, gfn) >> PAGE_SHIFT:
        auditor.say("I9", f"{auditor.entry_name(sp, index)} maps gfn {gfn:#x} to a frame that is not its own")
    if role_level(sp.role) > 1:
        validate_large(auditor, sp, index, gfn, slot)
    elif spte & Pte.PAGE_SIZE:
        auditor.say("I9", f"{auditor.entry_name(sp, index)} has PS, which is PAT in an entry of level 1")
    return None


@cython.cfunc
@cython.exceptval(check=False)
def rights_of(kvm: KvmPtr, spte: spte_t) -> cython.int:
    """What the hardware may do through a leaf, as Access bits."""
    rights: cython.int = Access.WRITE if is_writable(spte) else 0
    rights |= Access.USER if spte & kvm.masks.user else 0
    executes: cython.bint = spte & kvm.masks.x != 0 if kvm.masks.x else not spte & kvm.masks.nx
    return rights | (Access.EXEC if executes else 0)


@cython.cfunc
def validate_large(auditor: Auditor, sp: ShadowPagePtr, index: cython.int, gfn: gfn_t, slot: MemSlotPtr) -> object:
    """I9: a large page is aligned, not executable if huge pages must not be, not MMU-writable where large pages are forbidden,
    not writable while dirty pages are logged."""
    spte: spte_t = sp.spt[index]
    level: cython.int = role_level(sp.role)
    if (gfn | spte_pfn(spte)) & (pages_per_hpage(level) - 1):
        auditor.say("I9", f"large {auditor.entry_name(sp, index)} is not aligned")
    if auditor.kvm.nx_huge_pages and rights_of(auditor.kvm, spte) & Access.EXEC:
        auditor.say("I9", f"large {auditor.entry_name(sp, index)} may be executed, which nx_huge_pages forbids")
    # One that was there before stays, without MMU-writable, until a fault in it maps smaller (slot_write_protect_gfn).
    if lpage_info(slot, gfn, level)[0] and spte & auditor.kvm.masks.mmu_writable:
        auditor.say("I9", f"large {auditor.entry_name(sp, index)} may become writable where large pages are forbidden")
    # In a log that begins with all pages dirty it may stay writable until one of its pages is cleared.
    initially_set: cython.bint = (auditor.kvm.manual_dirty_log_protect & ManualProtect.INITIALLY_SET) != 0
    if is_writable(spte) and slot.flags & SlotFlag.SLOT_LOG_DIRTY and not initially_set:
        auditor.say("I9", f"large {auditor.entry_name(sp, index)} is writable while dirty pages are logged")
    return None


@cython.cfunc
def validate_link(auditor: Auditor, sp: ShadowPagePtr, index: cython.int) -> object:
    """I10, I11, I17: a link leads to a live, valid page one level down, of the same kind, with the quadrant of its entry."""
    child: ShadowPagePtr = to_shadow_page(auditor.kvm, sp.spt[index])
    if child == cython.NULL or not child.live:
        auditor.say("I11", f"{auditor.entry_name(sp, index)} leads to no live page")
        return None
    if child.role & Role.INVALID:
        auditor.say("I17", f"{auditor.entry_name(sp, index)} leads to invalid {auditor.page_name(child)}")
    expected: role_t = child_role(sp.role, index, (child.role & Role.DIRECT) != 0, role_access(child.role))
    if child.role & ~cython.cast(role_t, Role.INVALID) != expected:
        auditor.say("I10", f"{auditor.entry_name(sp, index)} leads to {auditor.page_name(child)}, not to {describe_role(expected)}")
    if sp.role & Role.DIRECT and not sp.special and child.gfn != sp_gfn_of(sp, index):
        auditor.say("I10", f"{auditor.entry_name(sp, index)} of a direct page leads to gfn {child.gfn:#x}")
    return None
