# SPDX-License-Identifier: GPL-2.0-only
"""make_spte: the leaf entry for a frame, with the decision whether it may be writable."""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Access, Role, role_level
from cython.cimports.shadowmmu.engine.arena.spte import (
    Spte,
    accessed_mask,
    dirty_mask,
    is_last,
    is_present,
    is_writable,
    mark_for_access_track,
)
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    Bug,
    KvmPtr,
    KvmVcpuPtr,
    MemSlotPtr,
    ShadowPagePtr,
    SlotFlag,
    SpteMasksPtr,
    gfn_t,
    p_spte,
    pfn_t,
    spte_t,
    warn,
)
from cython.cimports.shadowmmu.engine.memory.memslots import mark_page_dirty
from cython.cimports.shadowmmu.engine.pages.unsync import try_to_unsync_pages
from cython.cimports.shadowmmu.x86.ept import Ept
from cython.cimports.shadowmmu.x86.pte import Pte
from cython.cimports.shadowmmu.x86.reserved import is_rsvd


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def ad_type(kvm: KvmPtr, sp: ShadowPagePtr) -> spte_t:
    """How the page's entries use A/D: 0 unless the hardware has none (the bits are reserved in PAE tables)."""
    return kvm.masks.ad_disabled if sp.role & Role.AD_DISABLED else 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def readable_spte(
    kvm: KvmPtr, sp: ShadowPagePtr, access: cython.int, pfn: pfn_t, prefetch: cython.bint, host_writable: cython.bint
) -> spte_t:
    """All of the entry but the right to write: A, size, X, U, memory type, the frame and what the host allows."""
    m: SpteMasksPtr = cython.address(kvm.masks)
    spte: spte_t = Spte.MMU_PRESENT | ad_type(kvm, sp) | m.present | m.me_value | pfn << PAGE_SHIFT
    if not prefetch:
        spte |= accessed_mask(kvm, spte)
    if role_level(sp.role) > 1:
        spte |= Pte.PAGE_SIZE
        if kvm.nx_huge_pages:
            access &= ~cython.cast(cython.int, Access.EXEC)
    spte |= m.x if access & Access.EXEC else m.nx
    if access & Access.USER:
        spte |= m.user
    if m.memtype:
        spte |= 6 << 3 | Ept.IGNORE_PAT  # write-back
    if host_writable:
        spte |= m.host_writable
    return spte


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def make_spte(
    vcpu: KvmVcpuPtr,
    sp: ShadowPagePtr,
    slot: MemSlotPtr,
    access: cython.int,
    gfn: gfn_t,
    pfn: pfn_t,
    old: spte_t,
    prefetch: cython.bint,
    can_unsync: cython.bint,
    host_writable: cython.bint,
    made: p_spte,
) -> cython.bint:
    """Build the entry that maps `gfn` to `pfn` with `access`; True if it had to be write-protected.

    A gfn that holds a shadowed table is writable only if its pages can go unsync. The check is skipped, and D left to
    the CPU, when the old entry was a writable *leaf*: then it has been done before. An MMIO mark with W counts as one,
    though nothing was checked for it; the page remembers that, for the audit.
    """
    kvm: KvmPtr = vcpu.kvm
    level: cython.int = role_level(sp.role)
    wrprot: cython.bint = False
    spte: spte_t = readable_spte(kvm, sp, access, pfn, prefetch, host_writable)
    if access & Access.WRITE and host_writable:
        was_writable: cython.bint = is_last(old, level) and is_writable(old)
        if not was_writable:
            wrprot = try_to_unsync_pages(kvm, gfn, can_unsync, prefetch)
        elif not is_present(old):
            sp.unchecked = True
        if not wrprot:
            spte |= Pte.WRITABLE | kvm.masks.mmu_writable
            if not was_writable or kvm.rules.dirties_writable:
                spte |= dirty_mask(kvm, spte)
    if prefetch:
        spte = mark_for_access_track(kvm, spte)
    if is_rsvd(cython.address(vcpu.mmu.shadow_zero), spte, level):
        warn(kvm, Bug.BUG_RESERVED_SPTE)
    if spte & Pte.WRITABLE and slot.flags & SlotFlag.SLOT_LOG_DIRTY:
        if level > 1:
            warn(kvm, Bug.BUG_HUGE_DIRTY)
        mark_page_dirty(slot, gfn)
    made[0] = spte
    return wrprot
