# SPDX-License-Identifier: GPL-2.0-only
"""The page fault: walk the guest's tables, find the frame, and have the shadow built (fetch.py).

`mmu_page_fault` decides what kind of fault it is; `shadow_page_fault` serves MMUs that shadow guest tables,
`direct_page_fault` those that map gfns linearly. Return values are RET_PF_*, or a negative errno.
"""

import cython
from cython.cimports.libc.string import memset
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.role import Access, Ext, Role
from cython.cimports.shadowmmu.engine.arena.state import (
    LEVEL_BITS,
    PAGE_SHIFT,
    Errno,
    GuestExceptionPtr,
    GuestFormat,
    Hpa,
    HvaFlag,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    MemSlotPtr,
    PfRet,
    SlotFlag,
    gfn_t,
    gva_t,
    pages_per_hpage,
    u64,
)
from cython.cimports.shadowmmu.engine.entries.leaf import PageFault, PageFaultPtr, Pfn
from cython.cimports.shadowmmu.engine.entries.mmio import cache_mmio_info, handle_mmio_page_fault
from cython.cimports.shadowmmu.engine.entries.shadow_walk import ShadowWalk, walk_init, walk_next, walk_okay
from cython.cimports.shadowmmu.engine.fault.fast_fault import fast_page_fault
from cython.cimports.shadowmmu.engine.fault.fetch import direct_map, fetch
from cython.cimports.shadowmmu.engine.fault.interleave import interleave
from cython.cimports.shadowmmu.engine.fault.invlpg import invalidate_gva
from cython.cimports.shadowmmu.engine.guest.mmu import is_direct, root_level
from cython.cimports.shadowmmu.engine.guest.walker import GuestWalker, GuestWalkerPtr, walk_addr
from cython.cimports.shadowmmu.engine.memory.guest_memory import InterleavePoint
from cython.cimports.shadowmmu.engine.memory.host_memory import fault_in_host_page, host_writable
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot, is_write_tracked
from cython.cimports.shadowmmu.engine.pages.pages import clear_write_flooding
from cython.cimports.shadowmmu.engine.pages.zap import make_pages_available, topup_memory_caches, unprotect_page
from cython.cimports.shadowmmu.engine.roots.roots import is_root_stale
from cython.cimports.shadowmmu.x86.pferr import Pferr


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def init_fault(vcpu: KvmVcpuPtr, fault: PageFaultPtr, addr: gva_t, error_code: u64) -> cython.void:
    memset(fault, 0, cython.sizeof(PageFault))
    fault.addr = addr
    fault.error_code = error_code
    fault.fetch = (error_code & Pferr.FETCH) != 0
    fault.write = (error_code & Pferr.WRITE) != 0
    fault.user = (error_code & Pferr.USER) != 0
    fault.present = (error_code & Pferr.PRESENT) != 0
    fault.rsvd = (error_code & Pferr.RSVD) != 0
    fault.is_tdp = is_direct(vcpu.mmu) and vcpu.kvm.tdp != 0
    fault.max_level = 3
    fault.req_level = 1
    fault.goal_level = 1


def inject_page_fault(vcpu: KvmVcpuPtr, fault: GuestExceptionPtr) -> cython.void:
    """kvm_inject_emulated_page_fault: the fault is the guest's own, or for L1 if L1's tables caused it.

    The translation that faulted is dropped first: if the shadow had it, the guest's handler would find the same
    fault again, and a CPU drops it too.
    """
    mmu: KvmMmuPtr = vcpu.mmu if fault.nested_page_fault else vcpu.walk_mmu
    if fault.error_code & Pferr.PRESENT and not fault.error_code & Pferr.RSVD:
        invalidate_gva(vcpu, mmu, fault.address, mmu.root.hpa)
    if not fault.nested_page_fault:
        vcpu.stat.pf_guest += 1
    vcpu.exception = fault[0]
    vcpu.exception.pending = True
    emit(vcpu.kvm, vcpu.id, Event.INJECT_PAGE_FAULT, fault.address, fault.error_code, fault.nested_page_fault)


# --- the frame behind a gfn


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def faultin_pfn(vcpu: KvmVcpuPtr, fault: PageFaultPtr) -> cython.int:
    """kvm_faultin_pfn: make the host map the page and note its frame. CONTINUE, or how the fault ends here."""
    kvm: KvmPtr = vcpu.kvm
    fault.mmu_seq = kvm.mmu_invalidate_seq
    slot: MemSlotPtr = fault.slot
    if slot == cython.NULL:
        fault.pfn = Pfn.PFN_NOSLOT
        return PfRet.RET_PF_CONTINUE
    # A slot on its way out: wait until it is gone instead of taking its memory for MMIO.
    if slot.flags & SlotFlag.SLOT_INVALID:
        return PfRet.RET_PF_RETRY
    fault.hva = slot.hva + fault.gfn - slot.base_gfn
    if slot.flags & SlotFlag.SLOT_READONLY and fault.write:
        return PfRet.RET_PF_EMULATE
    entry: u64 = fault_in_host_page(kvm, fault.hva, fault.write)
    if not entry & HvaFlag.HVA_PRESENT or (fault.write and not host_writable(entry)):
        return -cython.cast(cython.int, Errno.EFAULT)
    fault.pfn = entry >> PAGE_SHIFT
    fault.map_writable = host_writable(entry) and not slot.flags & SlotFlag.SLOT_READONLY
    return PfRet.RET_PF_CONTINUE


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def resolve_pfn(vcpu: KvmVcpuPtr, fault: PageFaultPtr, access: cython.int) -> cython.int:
    """handle_abnormal_pfn: `faultin_pfn`, and for a gfn without memory: note the MMIO access, and emulate at once if no mark can be set."""
    result: cython.int = faultin_pfn(vcpu, fault)
    if result != PfRet.RET_PF_CONTINUE or fault.slot != cython.NULL:
        return result
    kvm: KvmPtr = vcpu.kvm
    gva: gva_t = 0 if fault.is_tdp else fault.addr
    cache_mmio_info(vcpu, gva, fault.gfn, access & kvm.masks.mmio_access)
    bits: cython.int = kvm.host_maxphyaddr if kvm.tdp else 52
    if not kvm.masks.mmio_value or fault.gfn >> (bits - PAGE_SHIFT):
        return PfRet.RET_PF_EMULATE
    return PfRet.RET_PF_CONTINUE


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_stale(vcpu: KvmVcpuPtr, fault: PageFaultPtr) -> cython.bint:
    """is_page_fault_stale: the root is obsolete, or the host took the page away since it was looked up."""
    if is_root_stale(vcpu):
        return True
    if fault.slot == cython.NULL:
        return False
    kvm: KvmPtr = vcpu.kvm
    if kvm.mmu_invalidate_in_progress and kvm.mmu_invalidate_start <= fault.hva < kvm.mmu_invalidate_end:
        return True
    return kvm.mmu_invalidate_seq != fault.mmu_seq


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def may_build(vcpu: KvmVcpuPtr, fault: PageFaultPtr) -> cython.int:
    """Pages are available and the root is still good - asked in this order: making room may zap the root (CVE-2026-64561)."""
    result: cython.int = make_pages_available(vcpu.kvm)
    if result:
        return result
    return PfRet.RET_PF_RETRY if is_stale(vcpu, fault) else PfRet.RET_PF_CONTINUE


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def is_tracked_write(vcpu: KvmVcpuPtr, fault: PageFaultPtr) -> cython.bint:
    """page_fault_handle_page_track: a write to a mapped page that holds an upper-level table cannot be let through."""
    if fault.rsvd or not fault.present or not fault.write:
        return False
    vcpu.retry.met_table = is_write_tracked(vcpu.kvm, fault.gfn)
    return vcpu.retry.met_table


# --- faults of MMUs that shadow guest tables


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_self_change(vcpu: KvmVcpuPtr, fault: PageFaultPtr, walker: GuestWalkerPtr) -> cython.bint:
    """is_self_change_mapping: the access could write one of the tables that map it: a large page would be split again at once.

    Also notes whether the very frame is such a table (then retrying by unprotecting it would not help); `fetch` does, too.
    """
    if vcpu.kvm.rules.ignores_self_change:
        return False
    writable: cython.bint = (walker.pte_access & Access.WRITE) != 0 or (not vcpu.mmu.cpu_role & Role.CR0_WP and not fault.user)
    if not writable:
        return False
    mask: gfn_t = ~(pages_per_hpage(walker.level) - 1)
    found: cython.bint = False
    level: cython.int
    for level in range(walker.level, walker.max_level + 1):
        other: gfn_t = walker.gfn ^ walker.table_gfn[level - 1]
        if not other & mask:
            found = True
        if not other:
            vcpu.write_fault_to_shadow_pgtable = True
    return found


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def lift_write_protection(vcpu: KvmVcpuPtr, fault: PageFaultPtr, walker: GuestWalkerPtr) -> cython.void:
    """CR0.WP=0 lets a supervisor write a read-only page, but the hardware runs with WP=1: map it writable, for
    the supervisor alone; with SMEP it must not be executable there, as the page is the user's."""
    if not fault.write or walker.pte_access & Access.WRITE or vcpu.mmu.cpu_role & Role.CR0_WP or fault.user or fault.slot == cython.NULL:
        return
    if vcpu.mmu.format == GuestFormat.FORMAT_EPT and vcpu.kvm.rules.lifts_no_ept:
        return
    walker.pte_access |= Access.WRITE
    walker.pte_access &= ~cython.cast(cython.int, Access.USER)
    if vcpu.mmu.cpu_ext & Ext.CR4_SMEP:
        walker.pte_access &= ~cython.cast(cython.int, Access.EXEC)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def clear_flood(vcpu: KvmVcpuPtr, addr: gva_t) -> cython.void:
    """shadow_page_table_clear_flood: tables on the path of an emulated write are in use as tables."""
    it: ShadowWalk
    walk_init(cython.address(it), vcpu, vcpu.mmu.root.hpa, addr)
    while walk_okay(cython.address(it)):
        clear_write_flooding(vcpu.kvm, it.sptep)
        walk_next(cython.address(it))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def shadow_page_fault(vcpu: KvmVcpuPtr, fault: PageFaultPtr) -> cython.int:
    """FNAME(page_fault): a fault of a guest with tables. Where the walk fails it is the guest's own.

    A store to a table that is tracked is emulated; else the shadow is built after the walk.
    """
    walker: GuestWalker
    access: u64 = fault.error_code & (Pferr.PRESENT | Pferr.WRITE | Pferr.USER | Pferr.FETCH)
    if not walk_addr(vcpu, vcpu.mmu, cython.address(walker), fault.addr, access):
        inject_page_fault(vcpu, cython.address(walker.fault))
        return PfRet.RET_PF_INJECT
    fault.gfn = walker.gfn
    fault.slot = gfn_to_memslot(vcpu.kvm, vcpu.smm, walker.gfn)
    if is_tracked_write(vcpu, fault):
        clear_flood(vcpu, fault.addr)
        return PfRet.RET_PF_EMULATE
    result: cython.int = topup_memory_caches(vcpu.kvm)
    if result:
        return result
    vcpu.write_fault_to_shadow_pgtable = False
    fault.max_level = 1 if is_self_change(vcpu, fault, cython.address(walker)) else walker.level
    result = resolve_pfn(vcpu, fault, walker.pte_access)
    if result != PfRet.RET_PF_CONTINUE:
        return result
    lift_write_protection(vcpu, fault, cython.address(walker))
    interleave(vcpu.kvm, InterleavePoint.AFTER_WALK)
    result = may_build(vcpu, fault)
    if result != PfRet.RET_PF_CONTINUE:
        return result
    return fetch(vcpu, fault, cython.address(walker))


# --- faults of direct MMUs


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def reach(levels: cython.int) -> cython.int:
    """Address bits that a root translates; hardware forms no larger address. The four entries of a PAE root reach 4 GiB."""
    return 32 if levels == 3 else PAGE_SHIFT + LEVEL_BITS * levels


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def direct_page_fault(vcpu: KvmVcpuPtr, fault: PageFaultPtr) -> cython.int:
    """nonpaging_page_fault and kvm_tdp_page_fault: the address is guest physical."""
    if not fault.is_tdp:
        fault.max_level = 2
    if fault.addr >> reach(root_level(vcpu.mmu)):
        return -cython.cast(cython.int, Errno.ERANGE)
    fault.gfn = fault.addr >> PAGE_SHIFT
    fault.slot = gfn_to_memslot(vcpu.kvm, vcpu.smm, fault.gfn)
    if is_tracked_write(vcpu, fault):
        return PfRet.RET_PF_EMULATE
    result: cython.int = fast_page_fault(vcpu, fault)
    if result != PfRet.RET_PF_INVALID:
        return result
    result = topup_memory_caches(vcpu.kvm)
    if result:
        return result
    result = resolve_pfn(vcpu, fault, Access.ALL)
    if result != PfRet.RET_PF_CONTINUE:
        return result
    interleave(vcpu.kvm, InterleavePoint.AFTER_WALK)
    result = may_build(vcpu, fault)
    if result != PfRet.RET_PF_CONTINUE:
        return result
    return direct_map(vcpu, fault)


# --- the way in


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def do_page_fault(vcpu: KvmVcpuPtr, addr: gva_t, error_code: u64) -> cython.int:
    """kvm_mmu_do_page_fault: one fault, counted by its outcome."""
    fault: PageFault
    if not vcpu.kvm.rules.wide_error_code:
        error_code &= ~cython.cast(u64, Pferr.GUEST_FINAL | Pferr.GUEST_PAGE)
    init_fault(vcpu, cython.address(fault), addr, error_code)
    vcpu.stat.pf_taken += 1
    result: cython.int
    if is_direct(vcpu.mmu):
        result = direct_page_fault(vcpu, cython.address(fault))
    else:
        result = shadow_page_fault(vcpu, cython.address(fault))
    if result == PfRet.RET_PF_FIXED:
        vcpu.stat.pf_fixed += 1
    elif result == PfRet.RET_PF_EMULATE:
        vcpu.stat.pf_emulate += 1
    elif result == PfRet.RET_PF_SPURIOUS:
        vcpu.stat.pf_spurious += 1
    return result


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unprotect_nested_write(vcpu: KvmVcpuPtr, gfn: gfn_t) -> cython.int:
    """kvm_mmu_write_protect_fault: L1's page walk has to write a table of its own, which is no longer shadowed then.

    Linux 6.1 tries again whatever stopped the write; later ones only if a table was in the way, and something was zapped.
    """
    kvm: KvmPtr = vcpu.kvm
    if not kvm.rules.retries_zapped:
        unprotect_page(kvm, gfn)
        return PfRet.RET_PF_RETRY
    if not vcpu.retry.met_table or not unprotect_page(kvm, gfn):
        return PfRet.RET_PF_EMULATE
    vcpu.stat.pf_emulate -= 1  # counted by what came of it
    return PfRet.RET_PF_RETRY


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def classify(vcpu: KvmVcpuPtr, addr: gva_t, error_code: u64) -> cython.int:
    """kvm_mmu_page_fault: MMIO or a normal fault, and the nested write that only needs its page unprotected."""
    result: cython.int = PfRet.RET_PF_INVALID
    if error_code & Pferr.RSVD:
        result = handle_mmio_page_fault(vcpu, addr)
        if result == PfRet.RET_PF_EMULATE:
            return result
    if result == PfRet.RET_PF_INVALID:
        result = do_page_fault(vcpu, addr, error_code)
    nested_write: u64 = Pferr.GUEST_PAGE | Pferr.WRITE | Pferr.PRESENT
    if result == PfRet.RET_PF_EMULATE and is_direct(vcpu.mmu) and (error_code & nested_write) == nested_write:
        return unprotect_nested_write(vcpu, addr >> PAGE_SHIFT)
    return result


def mmu_page_fault(vcpu: KvmVcpuPtr, addr: gva_t, error_code: u64) -> cython.int:
    """A #PF exit of the shadow tables, or a nested page fault: RET_PF_*, RET_PF_INJECT, or a negative errno."""
    emit(vcpu.kvm, vcpu.id, Event.MMU_PAGE_FAULT, addr, error_code)
    if vcpu.mmu.root.hpa == Hpa.INVALID_PAGE:
        return PfRet.RET_PF_RETRY
    vcpu.retry.met_table = False
    result: cython.int = classify(vcpu, addr, error_code)
    emit(vcpu.kvm, vcpu.id, Event.MMU_PAGE_FAULT_RET, result if result < 0 else 1)
    return result
