# SPDX-License-Identifier: GPL-2.0-only
"""Syncing: make an unsync page agree with the guest table again, when the guest flushes its TLB."""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Role, RoleShift, role_access
from cython.cimports.shadowmmu.engine.arena.spte import spte_pfn
from cython.cimports.shadowmmu.engine.arena.state import (
    ENTRIES,
    PAGE_SHIFT,
    Bug,
    Errno,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    ListHead,
    ListHeadPtr,
    MemSlotPtr,
    Request,
    ShadowPagePtr,
    gfn_t,
    gpa_t,
    list_init,
    p_spte,
    role_t,
    spte_t,
    u64,
    warn,
)
from cython.cimports.shadowmmu.engine.arena.tlb import make_request
from cython.cimports.shadowmmu.engine.entries.make_spte import make_spte
from cython.cimports.shadowmmu.engine.entries.mmio import sync_mmio_spte
from cython.cimports.shadowmmu.engine.entries.prefetch import prefetch_invalid_gpte
from cython.cimports.shadowmmu.engine.guest.mmu import is_direct
from cython.cimports.shadowmmu.engine.guest.walker import (
    entry_size,
    gpte_access,
    gpte_gfn,
    protect_clean_gpte,
    read_gpte,
)
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot
from cython.cimports.shadowmmu.engine.memory.rmap import drop_spte, set_access, slot_write_protect_gfn, sp_access_of, sp_gfn_of, spte_update
from cython.cimports.shadowmmu.engine.pages.unsync import (
    PageVec,
    PageVecPtr,
    Parents,
    ParentsPtr,
    clear_parents,
    pages_first,
    pages_next,
    unlink_unsync_page,
    unsync_walk,
)
from cython.cimports.shadowmmu.engine.pages.zap import prepare_zap_page, remote_flush_or_zap


def level1_sp_gpa(sp: ShadowPagePtr) -> gpa_t:
    """get_level1_sp_gpa: guest address of what entry 0 of a level-1 page shadows: the second half of a 4-byte table for quadrant 1."""
    offset: gpa_t = 0
    if sp.role & Role.HAS_4_BYTE_GPTE:
        offset = ((sp.role & Role.QUADRANT) >> RoleShift.QUADRANT_SHIFT) << 11
    return (sp.gfn << PAGE_SHIFT) + offset


def sync_spte(vcpu: KvmVcpuPtr, sp: ShadowPagePtr, i: cython.int, gpte: u64) -> cython.bint:
    """Make entry `i` say what the guest entry says. True if remote TLBs must be flushed."""
    kvm: KvmPtr = vcpu.kvm
    mmu: KvmMmuPtr = vcpu.mmu
    sptep: p_spte = cython.address(sp.spt[i])
    if prefetch_invalid_gpte(vcpu, sptep, gpte):
        return True
    gfn: gfn_t = gpte_gfn(mmu.format, gpte)
    access: cython.int = role_access(sp.role) & gpte_access(mmu.format, gpte)
    access = protect_clean_gpte(mmu, access, gpte)
    if sync_mmio_spte(vcpu, sptep, gfn, access):
        return False
    # An entry without any right, in which nothing would be, can be made only with execute-only EPT, and must not.
    if (access | kvm.masks.present) == kvm.masks.nonpresent or gfn != sp_gfn_of(sp, i):
        drop_spte(kvm, sptep)
        return True
    if kvm.rules.sync_keeps and access == sp_access_of(sp, i):
        return False
    set_access(kvm, sp, i, access)
    old: spte_t = sptep[0]
    made: spte_t = 0
    slot: MemSlotPtr = gfn_to_memslot(kvm, vcpu.smm, gfn)
    host_writable: cython.bint = (old & kvm.masks.host_writable) != 0
    ahead: cython.bint = not kvm.rules.sync_keeps_accessed
    make_spte(vcpu, sp, slot, access, gfn, spte_pfn(old), old, ahead, False, host_writable, cython.address(made))
    return spte_update(kvm, sptep, made)


def same_mode(mmu: KvmMmuPtr, sp: ShadowPagePtr) -> cython.bint:
    """The page was made in the mode that the MMU is in now, so that its guest table means the same.

    PAE and long mode can give one role to level-2 pages with other reserved bits, as in the kernel (H12).
    """
    ignored: role_t = Role.LEVEL | Role.ACCESS | Role.QUADRANT | Role.PASSTHROUGH
    return not (sp.role ^ mmu.root_role) & ~ignored


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sync_page(vcpu: KvmVcpuPtr, sp: ShadowPagePtr) -> cython.int:
    """FNAME(sync_page), nonpaging_sync_page: 1 flush needed, 0 not, -1 the page cannot be synced in this MMU's mode."""
    mmu: KvmMmuPtr = vcpu.mmu
    if is_direct(mmu) or sp.role & Role.DIRECT or not same_mode(mmu, sp):
        warn(vcpu.kvm, Bug.BUG_SYNC_ROLE)
        return -1
    flush: cython.int = 0
    base: gpa_t = level1_sp_gpa(sp)
    size: cython.int = entry_size(mmu.format)
    nothing: spte_t = vcpu.kvm.masks.nonpresent
    i: cython.int
    gpte: u64 = 0
    for i in range(ENTRIES):
        if sp.spt[i] == nothing:
            continue
        if not read_gpte(vcpu, mmu.format, base + i * size, cython.address(gpte)):
            return -1
        if sync_spte(vcpu, sp, i, gpte):
            flush = 1
    return flush


def sync_sp(vcpu: KvmVcpuPtr, sp: ShadowPagePtr, invalid: ListHeadPtr) -> cython.int:
    """kvm_sync_page: sync, or zap what cannot be synced (then -1)."""
    result: cython.int = sync_page(vcpu, sp)
    if result < 0:
        prepare_zap_page(vcpu.kvm, sp, invalid)
    return result


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def protect_all(vcpu: KvmVcpuPtr, vec: PageVecPtr, parents: ParentsPtr) -> cython.bint:
    """kvm_vcpu_write_protect_gfn: write-protect the guest tables of all pages collected, before any is read. True if a mapping changed."""
    protected: cython.bint = False
    i: cython.int = pages_first(vec, parents)
    while i < vec.nr:
        gfn: gfn_t = vec.page[i].sp.gfn
        slot: MemSlotPtr = gfn_to_memslot(vcpu.kvm, vcpu.smm, gfn)
        if slot != cython.NULL and slot_write_protect_gfn(vcpu.kvm, slot, gfn, 1):
            protected = True
        i = pages_next(vec, parents, i)
    return protected


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def need_resched(kvm: KvmPtr, synced: u64) -> cython.bint:
    """Another task wants the CPU after so many more pages have been synced."""
    if not kvm.resched_after:
        return False
    kvm.resched_after = kvm.resched_after - synced if kvm.resched_after > synced else 0
    return not kvm.resched_after


def sync_children(vcpu: KvmVcpuPtr, parent: ShadowPagePtr, can_yield: cython.bint) -> cython.int:
    """mmu_sync_children: sync every unsync page below `parent`, a batch at a time. 0, or -EINTR if another task wants the CPU
    and the lock cannot be let go: what is left is synced before the guest is entered."""
    kvm: KvmPtr = vcpu.kvm
    invalid: ListHead
    list_init(cython.address(invalid))
    vec: PageVec
    parents: Parents
    flush: cython.bint = False
    while unsync_walk(kvm, parent, cython.address(vec)):
        if protect_all(vcpu, cython.address(vec), cython.address(parents)):
            remote_flush_or_zap(kvm, cython.address(invalid), True)
            flush = False
        synced: u64 = 0
        i: cython.int = pages_first(cython.address(vec), cython.address(parents))
        while i < vec.nr:
            synced += 1
            unlink_unsync_page(kvm, vec.page[i].sp)
            if sync_sp(vcpu, vec.page[i].sp, cython.address(invalid)) > 0:
                flush = True
            clear_parents(kvm, cython.address(parents))
            i = pages_next(cython.address(vec), cython.address(parents), i)
        if need_resched(kvm, synced):
            remote_flush_or_zap(kvm, cython.address(invalid), flush)
            flush = False
            if not can_yield:
                make_request(vcpu, Request.REQ_MMU_SYNC)
                return -cython.cast(cython.int, Errno.EINTR)
    remote_flush_or_zap(kvm, cython.address(invalid), flush)
    return 0
