# SPDX-License-Identifier: GPL-2.0-only
"""Shadow pages, MMUs and memslots as Python sees them."""

import cython
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    PREV_ROOTS,
    Hpa,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    MemSlotPtr,
    ShadowPagePtr,
    SlotFlag,
    host_pa,
    p_spte,
    u64,
)
from cython.cimports.shadowmmu.engine.guest.mmu import guest_level
from cython.cimports.shadowmmu.engine.memory.pte_list import PteListIter, pte_list_first, pte_list_next
from cython.cimports.shadowmmu.engine.pages.pages import is_obsolete

from shadowmmu.engine.face.types import Memslot, MmuView, RootInfo, ShadowPageView


@cython.cfunc
def entries_of(kvm: KvmPtr, head: u64) -> list:
    """Host physical addresses of the entries in the rmap that begins at `head`."""
    found = []
    it: PteListIter
    sptep: p_spte = pte_list_first(head, cython.address(it))
    while sptep != cython.NULL:
        found.append(host_pa(kvm, sptep))
        sptep = pte_list_next(cython.address(it))
    return found


@cython.cfunc
def view_page(kvm: KvmPtr, sp: ShadowPagePtr) -> object:
    """The page as it is now, a `ShadowPageView`."""
    return ShadowPageView(
        host_pa(kvm, sp.spt), sp.gfn, sp.role, sp.root_count, bool(sp.unsync), sp.unsync_children,
        bool(sp.special), sp.owner, bool(is_obsolete(kvm, sp)), tuple(entries_of(kvm, sp.parent_ptes)),
    )  # fmt: skip


@cython.cfunc
def kept_roots(mmu: KvmMmuPtr) -> tuple:
    """The cached roots, a `RootInfo` each."""
    roots: list = [
        RootInfo(mmu.prev_roots[i].pgd, mmu.prev_roots[i].hpa) for i in range(PREV_ROOTS) if mmu.prev_roots[i].hpa != Hpa.INVALID_PAGE
    ]
    return tuple(roots)


@cython.cfunc
def view_mmu(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr) -> object:
    """The MMU as it is now, a `MmuView`."""
    return MmuView(
        "guest" if mmu.is_guest_mmu else "root", vcpu.mmu == mmu, mmu.root_role, guest_level(mmu), mmu.root.pgd,
        None if mmu.root.hpa == Hpa.INVALID_PAGE else mmu.root.hpa, kept_roots(mmu),
    )  # fmt: skip


@cython.cfunc
def view_slot(slot: MemSlotPtr) -> object:
    """The memslot as it is now, a `Memslot`."""
    return Memslot(
        slot.id, slot.as_id, slot.base_gfn << PAGE_SHIFT, slot.npages << PAGE_SHIFT, slot.hva << PAGE_SHIFT,
        bool(slot.flags & SlotFlag.SLOT_READONLY), bool(slot.flags & SlotFlag.SLOT_LOG_DIRTY),
    )  # fmt: skip
