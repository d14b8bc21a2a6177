# SPDX-License-Identifier: GPL-2.0-only
"""Eager page splitting: an L2's huge mappings become tables of 4K ones before a write to them has to.

With its TDP MMU Linux splits when dirty logging begins, and again what a cleared log covers. L1's own mappings are then the
TDP MMU's, which is another system: here they wait for the first write, as they do without it.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.role import Access, Role, role_access, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_last, is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    ENTRIES,
    PAGE_SHIFT,
    Errno,
    KvmPtr,
    MemSlotPtr,
    ShadowPagePtr,
    gfn_t,
    p_spte,
    p_u64,
    pages_per_hpage,
    spte_index,
    spte_t,
    sptep_to_sp,
    u64,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_remote_tlbs
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_rmap
from cython.cimports.shadowmmu.engine.memory.pte_list import PteListIter, pte_list_first, pte_list_next
from cython.cimports.shadowmmu.engine.memory.rmap import drop_spte, rmap_add, sp_access_of, sp_gfn_of
from cython.cimports.shadowmmu.engine.pages.pages import link_shadow_page
from cython.cimports.shadowmmu.engine.pages.zap import MIN_FREE_PAGES, available_pages
from cython.cimports.shadowmmu.engine.shadow.get_page import get_child_sp
from cython.cimports.shadowmmu.x86.pte import Pte


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def split_spte(kvm: KvmPtr, huge: spte_t, child: ShadowPagePtr, index: cython.int) -> spte_t:
    """make_huge_page_split_spte: entry `index` below a huge one, with its rights. A 4K page may be executable again.

    In the kernel: make_spte_executable.
    """
    spte: spte_t = huge | (index * pages_per_hpage(role_level(child.role))) << PAGE_SHIFT
    if role_level(child.role) > 1:
        return spte
    spte &= ~cython.cast(spte_t, Pte.PAGE_SIZE)
    if role_access(child.role) & Access.EXEC and kvm.nx_huge_pages:
        spte = (spte & ~kvm.masks.nx) | kvm.masks.x
    return spte


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill_child(kvm: KvmPtr, slot: MemSlotPtr, huge: spte_t, child: ShadowPagePtr) -> cython.bint:
    """Map all that the huge entry mapped. True: a table stands there already, which may map less, so a flush is due."""
    flush: cython.bint = False
    index: cython.int
    for index in range(ENTRIES):
        sptep: p_spte = cython.address(child.spt[index])
        if is_present(sptep[0]):
            flush = flush or not is_last(sptep[0], role_level(child.role))
            continue
        sptep[0] = split_spte(kvm, huge, child, index)
        rmap_add(kvm, slot, sptep, sp_gfn_of(child, index), role_access(child.role))
    return flush


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def split_huge_page(kvm: KvmPtr, slot: MemSlotPtr, sptep: p_spte) -> cython.void:
    """shadow_mmu_split_huge_page. The child is direct, whatever its parent is; a direct page needs no vCPU, so any will do.

    In the kernel: shadow_mmu_get_sp_for_split.
    """
    parent: ShadowPagePtr = sptep_to_sp(kvm, sptep)
    index: cython.int = spte_index(sptep)
    huge: spte_t = sptep[0]
    child: ShadowPagePtr = get_child_sp(cython.address(kvm.vcpus[0]), sptep, sp_gfn_of(parent, index), True, sp_access_of(parent, index))
    flush: cython.bint = fill_child(kvm, slot, huge, child)
    drop_spte(kvm, sptep)
    if flush:
        flush_remote_tlbs(kvm)
    link_shadow_page(kvm, sptep, child, 4)  # not in a PAE root, whose entries are never huge


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def try_split_huge_page(kvm: KvmPtr, slot: MemSlotPtr, sptep: p_spte) -> cython.int:
    """shadow_mmu_try_split_huge_page: 0, or the negative error that ends the splitting."""
    parent: ShadowPagePtr = sptep_to_sp(kvm, sptep)
    gfn: gfn_t = sp_gfn_of(parent, spte_index(sptep))
    level: cython.int = role_level(parent.role)
    spte: spte_t = sptep[0]
    result: cython.int = 0
    if available_pages(kvm) <= MIN_FREE_PAGES:
        result = -cython.cast(cython.int, Errno.ENOSPC)
    elif not kvm.nfree_pages or kvm.nfree_descs <= ENTRIES:
        result = -cython.cast(cython.int, Errno.ENOMEM)
    else:
        split_huge_page(kvm, slot, sptep)
    emit(kvm, -1, Event.KVM_MMU_SPLIT_HUGE_PAGE, gfn, spte, level, result)
    return result


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def next_to_split(kvm: KvmPtr, head: u64) -> p_spte:
    """The first entry of a list that is to be split: an L2's, in a page that is still in use."""
    it: PteListIter
    sptep: p_spte = pte_list_first(head, cython.address(it))
    while sptep != cython.NULL:
        sp: ShadowPagePtr = sptep_to_sp(kvm, sptep)
        if sp.role & Role.GUEST_MODE and not sp.role & Role.INVALID:
            return sptep
        sptep = pte_list_next(cython.address(it))
    return cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def split_mappings(kvm: KvmPtr, slot: MemSlotPtr, head: p_u64) -> cython.void:
    """shadow_mmu_try_split_huge_pages: all mappings in one list, until one fails."""
    sptep: p_spte = next_to_split(kvm, head[0])
    while sptep != cython.NULL and not try_split_huge_page(kvm, slot, sptep):
        sptep = next_to_split(kvm, head[0])


def try_split_huge_pages(kvm: KvmPtr, slot: MemSlotPtr, start: gfn_t, end: gfn_t) -> cython.void:
    """kvm_mmu_try_split_huge_pages: of gfns [start, end), the largest first.

    In the kernel: kvm_shadow_mmu_try_split_huge_pages, kvm_mmu_slot_try_split_huge_pages.
    """
    if not kvm.eager_page_split:
        return
    level: cython.int
    for level in range(3, 1, -1):
        head: p_u64 = gfn_to_rmap(slot, start, level)
        while head <= gfn_to_rmap(slot, end - 1, level):
            split_mappings(kvm, slot, head)
            head += 1
