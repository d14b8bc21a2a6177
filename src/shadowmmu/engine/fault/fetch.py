# SPDX-License-Identifier: GPL-2.0-only
"""Building the shadow of one translation: from the root down to the leaf, a page linked where one is missing."""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.role import Access, Role, role_access
from cython.cimports.shadowmmu.engine.arena.spte import is_large, is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    Bug,
    Errno,
    KvmPtr,
    KvmVcpuPtr,
    ListHead,
    PfRet,
    Request,
    ShadowPagePtr,
    dummy_root,
    gfn_t,
    list_init,
    p_spte,
    pages_per_hpage,
    pfn_t,
    sptep_to_sp,
    to_shadow_page,
    warn,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_remote_tlbs, make_request
from cython.cimports.shadowmmu.engine.entries.huge import disallowed_hugepage_adjust, hugepage_adjust
from cython.cimports.shadowmmu.engine.entries.leaf import PageFaultPtr, set_spte
from cython.cimports.shadowmmu.engine.entries.prefetch import direct_pte_prefetch, pte_prefetch
from cython.cimports.shadowmmu.engine.entries.shadow_walk import ShadowWalk, ShadowWalkPtr, walk_init, walk_next, walk_okay
from cython.cimports.shadowmmu.engine.fault.interleave import interleave
from cython.cimports.shadowmmu.engine.guest.mmu import guest_level, root_level
from cython.cimports.shadowmmu.engine.guest.walker import GuestWalkerPtr, gpte_changed
from cython.cimports.shadowmmu.engine.memory.guest_memory import InterleavePoint
from cython.cimports.shadowmmu.engine.pages.pages import account_huge_nx_page, clear_write_flooding, drop_parent_pte, link_shadow_page
from cython.cimports.shadowmmu.engine.pages.zap import remote_flush_or_zap, zap_pte
from cython.cimports.shadowmmu.engine.shadow.get_page import get_child_sp
from cython.cimports.shadowmmu.engine.shadow.sync import sync_children


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unlink_present(kvm: KvmPtr, sptep: p_spte, sp: ShadowPagePtr) -> cython.void:
    """What stands where `sp` is to be linked goes first: a large leaf, or a page that the guest no longer means (H4).

    A direct page that is another one only by its rights is just unlinked (validate_direct_spte): the guest's D bit was set.
    """
    invalid: ListHead
    list_init(cython.address(invalid))
    if sp.role & Role.DIRECT and not is_large(sptep[0]):
        child: ShadowPagePtr = to_shadow_page(kvm, sptep[0])
        if role_access(child.role) != role_access(sp.role):
            drop_parent_pte(kvm, child, sptep)
            flush_remote_tlbs(kvm)
            return
    zap_pte(kvm, sptep_to_sp(kvm, sptep), sptep, cython.address(invalid))
    remote_flush_or_zap(kvm, cython.address(invalid), True)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def link_child(vcpu: KvmVcpuPtr, sptep: p_spte, sp: ShadowPagePtr) -> cython.void:
    """link_shadow_page, over what is there: an entry that led elsewhere is unlinked first, and flushed (H4)."""
    if is_present(sptep[0]):
        unlink_present(vcpu.kvm, sptep, sp)
    link_shadow_page(vcpu.kvm, sptep, sp, root_level(vcpu.mmu))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def build_upper(vcpu: KvmVcpuPtr, fault: PageFaultPtr, walker: GuestWalkerPtr, it: ShadowWalkPtr) -> cython.bint:
    """Descend to the level of the guest's leaf, linking a page for each guest table. False: retry.

    A write to one of these tables is noted: the root's own, for which no page is made here, is not among them.

    Each guest entry is read again *after* the page for the table it is in has been write-protected - the top
    entry too, because below a special root the top table's page is made right here (H3). Levels above the guest's
    own take nothing from the walk (H6).
    """
    top: cython.int = walker.max_level
    while walk_okay(it) and it.level > walker.level:
        clear_write_flooding(vcpu.kvm, it.sptep)
        index: cython.int = it.level - 2
        interleave(vcpu.kvm, InterleavePoint.BEFORE_GET_PAGE)
        # Levels above the guest's own have no table: gfn 0, all rights.
        above: cython.bint = it.level - 1 > top and guest_level(vcpu.mmu) <= 3
        gfn: gfn_t = 0 if above else walker.table_gfn[index]
        access: cython.int = Access.ALL if above else walker.pt_access[index]
        sp: ShadowPagePtr = get_child_sp(vcpu, it.sptep, gfn, False, access)
        # A table is synced before it is linked: the guest need not flush for an entry that becomes present.
        if sp != cython.NULL and sp.unsync_children and sync_children(vcpu, sp, False):
            return False
        if it.level - 1 <= top and gpte_changed(vcpu, vcpu.mmu, walker, it.level - 1):
            return False
        if sp != cython.NULL:
            link_child(vcpu, it.sptep, sp)
        if fault.write and gfn == fault.gfn and not above:
            vcpu.write_fault_to_shadow_pgtable = True
        walk_next(it)
    return True


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def build_direct(vcpu: KvmVcpuPtr, fault: PageFaultPtr, it: ShadowWalkPtr, access: cython.int, shadow: cython.bint) -> cython.bint:
    """Descend from the guest's leaf (or from the top, without guest tables) to the goal level by direct pages.

    They have the rights of the guest's leaf; other rights mean another page.
    """
    kvm: KvmPtr = vcpu.kvm
    while walk_okay(it):
        if shadow:
            clear_write_flooding(kvm, it.sptep)
        if kvm.nx_huge_pages:
            disallowed_hugepage_adjust(kvm, fault, it.sptep[0], it.level)
        if it.level == fault.goal_level:
            return True
        gfn: gfn_t = fault.gfn & ~(pages_per_hpage(it.level) - 1)
        sp: ShadowPagePtr = get_child_sp(vcpu, it.sptep, gfn, True, access)
        if sp != cython.NULL:
            link_child(vcpu, it.sptep, sp)
            if fault.huge_page_disallowed:
                sp.nx_disallowed = True
            # A guest without paging, under shadow paging, is not counted.
            if fault.huge_page_disallowed and fault.req_level >= it.level and (shadow or fault.is_tdp or kvm.rules.nx_marks_nonpaging):
                account_huge_nx_page(kvm, sp)
        walk_next(it)
    warn(kvm, Bug.BUG_FETCH_LEVEL)
    return False


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def request_spte(vcpu: KvmVcpuPtr, fault: PageFaultPtr) -> cython.void:
    """Choose the mapping's size and tell what is wanted; a 3-level root has no 1 GiB entries (H10)."""
    if fault.max_level >= root_level(vcpu.mmu):
        fault.max_level = root_level(vcpu.mmu) - 1
    hugepage_adjust(vcpu.kvm, fault)
    pfn: pfn_t = fault.pfn | (fault.gfn & (pages_per_hpage(fault.goal_level) - 1))
    emit(vcpu.kvm, vcpu.id, Event.KVM_MMU_SPTE_REQUESTED, fault.gfn, pfn, fault.goal_level)


def fetch(vcpu: KvmVcpuPtr, fault: PageFaultPtr, walker: GuestWalkerPtr) -> cython.int:
    """FNAME(fetch): carry one guest translation over into the shadow tables."""
    direct_access: cython.int = walker.pte_access
    if gpte_changed(vcpu, vcpu.mmu, walker, walker.max_level):
        return PfRet.RET_PF_RETRY
    it: ShadowWalk
    walk_init(cython.address(it), vcpu, vcpu.mmu.root.hpa, fault.addr)
    # Memory has appeared where a root led outside: the next entry loads a real one.
    if not it.level and vcpu.mmu.root.hpa == dummy_root(vcpu.kvm):
        make_request(vcpu, Request.REQ_MMU_FREE_OBSOLETE_ROOTS)
        return PfRet.RET_PF_RETRY
    if not build_upper(vcpu, fault, walker, cython.address(it)):
        return PfRet.RET_PF_RETRY
    request_spte(vcpu, fault)
    if not build_direct(vcpu, fault, cython.address(it), direct_access, True):
        return -cython.cast(cython.int, Errno.EFAULT)
    gfn: gfn_t = fault.gfn & ~(pages_per_hpage(it.level) - 1)
    result: cython.int = set_spte(vcpu, fault.slot, it.sptep, walker.pte_access, gfn, fault.pfn, fault)
    if result != PfRet.RET_PF_SPURIOUS:
        pte_prefetch(vcpu, walker, it.sptep)
    return result


def direct_map(vcpu: KvmVcpuPtr, fault: PageFaultPtr) -> cython.int:
    """__direct_map: a fault of a guest without tables, or of one on nested tables of the host: gfn is the address, down to the leaf."""
    request_spte(vcpu, fault)
    it: ShadowWalk
    walk_init(cython.address(it), vcpu, vcpu.mmu.root.hpa, fault.addr)
    if not build_direct(vcpu, fault, cython.address(it), Access.ALL, False):
        return -cython.cast(cython.int, Errno.EFAULT)
    gfn: gfn_t = fault.gfn & ~(pages_per_hpage(it.level) - 1)
    result: cython.int = set_spte(vcpu, fault.slot, it.sptep, Access.ALL, gfn, fault.pfn, fault)
    if result != PfRet.RET_PF_SPURIOUS:
        direct_pte_prefetch(vcpu, it.sptep)
    return result
