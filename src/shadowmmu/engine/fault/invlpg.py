# SPDX-License-Identifier: GPL-2.0-only
"""INVLPG: the guest drops one translation, so an unsync entry of it must not survive."""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.spte import is_last, is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    PREV_ROOTS,
    GuestFormat,
    Hpa,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    ShadowPagePtr,
    gpa_t,
    gva_t,
    hpa_t,
    p_spte,
    spte_index,
    spte_t,
    sptep_to_sp,
    u64,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_hw_gva, flush_remote_tlbs
from cython.cimports.shadowmmu.engine.entries.mmio import clear_mmio_info
from cython.cimports.shadowmmu.engine.entries.prefetch import prefetch_gpte
from cython.cimports.shadowmmu.engine.entries.shadow_walk import ShadowWalk, walk_init, walk_next, walk_okay
from cython.cimports.shadowmmu.engine.guest.mmu import is_direct, is_noncanonical
from cython.cimports.shadowmmu.engine.guest.walker import entry_size, read_gpte
from cython.cimports.shadowmmu.engine.pages.zap import CACHE_DESCS, topup_memory_caches, zap_pte
from cython.cimports.shadowmmu.engine.shadow.sync import level1_sp_gpa, same_mode, sync_spte


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sync_one(vcpu: KvmVcpuPtr, sp: ShadowPagePtr, sptep: p_spte) -> cython.void:
    """kvm_sync_spte: make one entry of an unsync page agree with the guest's; what cannot be read is zapped."""
    kvm: KvmPtr = vcpu.kvm
    gpte: u64 = 0
    if sptep[0] == kvm.masks.nonpresent:
        return
    at: gpa_t = level1_sp_gpa(sp) + spte_index(sptep) * entry_size(vcpu.mmu.format)
    if not same_mode(vcpu.mmu, sp) or not read_gpte(vcpu, vcpu.mmu.format, at, cython.address(gpte)):
        zap_pte(kvm, sp, sptep, cython.NULL)
        flush_remote_tlbs(kvm)
    elif sync_spte(vcpu, sp, spte_index(sptep), gpte):
        flush_remote_tlbs(kvm)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def zap_unsync_leaf(vcpu: KvmVcpuPtr, sp: ShadowPagePtr, sptep: p_spte) -> cython.void:
    """Clear an entry of an unsync page and map what the guest's entry says now, to spare it a fault."""
    kvm: KvmPtr = vcpu.kvm
    old: spte_t = sptep[0]
    gpte: u64 = 0
    zap_pte(kvm, sp, sptep, cython.NULL)
    if is_present(old):
        flush_remote_tlbs(kvm)
    # A cached root may be of another mode, whose entries this MMU cannot read.
    if kvm.nfree_descs < CACHE_DESCS or not same_mode(vcpu.mmu, sp):
        return
    at: gpa_t = level1_sp_gpa(sp) + spte_index(sptep) * entry_size(vcpu.mmu.format)
    if read_gpte(vcpu, vcpu.mmu.format, at, cython.address(gpte)):
        prefetch_gpte(vcpu, sptep, gpte, False)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def invlpg_root(vcpu: KvmVcpuPtr, gva: gva_t, root: hpa_t) -> cython.void:
    """FNAME(invlpg): walk one root as long as something below may be unsync."""
    syncs: cython.bint = vcpu.kvm.rules.invlpg_syncs
    clear_mmio_info(vcpu, gva)
    if not syncs:
        topup_memory_caches(vcpu.kvm)
    if root == Hpa.INVALID_PAGE:
        return
    it: ShadowWalk
    walk_init(cython.address(it), vcpu, root, gva)
    while walk_okay(cython.address(it)):
        sp: ShadowPagePtr = sptep_to_sp(vcpu.kvm, it.sptep)
        if syncs:
            if sp.unsync:
                sync_one(vcpu, sp, it.sptep)
        elif is_last(it.sptep[0], it.level):
            if sp.unsync:
                zap_unsync_leaf(vcpu, sp, it.sptep)
            return
        if not sp.unsync_children:
            return
        walk_next(cython.address(it))


def invalidate_gva(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, gva: gva_t, root: hpa_t) -> cython.void:
    """kvm_mmu_invalidate_gva: in the hardware and in one root, or with INVALID_PAGE in the current and all cached.

    Cached roots too: a global page's translation would survive in them. A nonpaging MMU has nothing to
    invalidate (CVE-2022-1789: the function pointer is NULL there), and L2's own tables are not shadowed.
    """
    emit(vcpu.kvm, vcpu.id, Event.INVALIDATE_GVA, gva, root)
    if not mmu.is_guest_mmu:
        if is_noncanonical(vcpu, gva):
            return
        flush_hw_gva(vcpu, gva)
    if mmu.format == GuestFormat.FORMAT_NONE or is_direct(mmu) or mmu.is_nested_mmu:
        return
    if root != Hpa.INVALID_PAGE:
        invlpg_root(vcpu, gva, root)
        return
    invlpg_root(vcpu, gva, mmu.root.hpa)
    i: cython.int
    for i in range(PREV_ROOTS):
        if mmu.prev_roots[i].hpa != Hpa.INVALID_PAGE:
            invlpg_root(vcpu, gva, mmu.prev_roots[i].hpa)


def kvm_invlpg(vcpu: KvmVcpuPtr, gva: gva_t) -> cython.void:
    """kvm_mmu_invlpg: the guest executed INVLPG."""
    emit(vcpu.kvm, vcpu.id, Event.INVLPG, gva)
    invalidate_gva(vcpu, vcpu.walk_mmu, gva, Hpa.INVALID_PAGE)
    vcpu.stat.invlpg += 1
