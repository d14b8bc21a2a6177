# SPDX-License-Identifier: GPL-2.0-only
"""Guest entry: serve the vCPU's requests in their order, and have a root."""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.state import Hpa, KvmVcpuPtr, Request, u32
from cython.cimports.shadowmmu.engine.arena.tlb import flush_hw_all, test_request
from cython.cimports.shadowmmu.engine.roots.roots import free_obsolete_roots, load_pgd, mmu_load, sync_prev_roots, sync_roots


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def take(vcpu: KvmVcpuPtr, request: Request) -> cython.bint:
    """kvm_check_request: was it asked for? It is not any more."""
    if not test_request(vcpu, request):
        return False
    vcpu.requests &= ~cython.cast(u32, request)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def flush_guest(vcpu: KvmVcpuPtr) -> cython.void:
    """kvm_vcpu_flush_tlb_guest: the guest flushed everything, so cached roots must not bring anything stale back."""
    emit(vcpu.kvm, vcpu.id, Event.GUEST_TLB_FLUSH)
    vcpu.stat.tlb_flush += 1
    if not vcpu.kvm.tdp:
        sync_roots(vcpu)
        sync_prev_roots(vcpu)
    flush_hw_all(vcpu)


def serve(vcpu: KvmVcpuPtr) -> cython.void:
    """vcpu_enter_guest's order: roots are freed before they are synced, synced before they are loaded, and the TLB last."""
    if take(vcpu, Request.REQ_MMU_FREE_OBSOLETE_ROOTS):
        free_obsolete_roots(vcpu)
    if take(vcpu, Request.REQ_MMU_SYNC):
        sync_roots(vcpu)
    if take(vcpu, Request.REQ_LOAD_MMU_PGD):
        load_pgd(vcpu)
    if take(vcpu, Request.REQ_TLB_FLUSH):
        vcpu.stat.tlb_flush += 1
        flush_hw_all(vcpu)
        take(vcpu, Request.REQ_TLB_FLUSH_CURRENT)
    if take(vcpu, Request.REQ_TLB_FLUSH_CURRENT):
        vcpu.stat.tlb_flush += 1
        flush_hw_all(vcpu)
    if take(vcpu, Request.REQ_TLB_FLUSH_GUEST):
        flush_guest(vcpu)


def prepare_entry(vcpu: KvmVcpuPtr) -> cython.int:
    """Ready to run: 0. The guest shuts down: 1. Out of pages or memory: a negative errno, and no root is left.

    Loading a root can itself ask for a flush, so requests are served until none is pending.
    """
    while True:
        serve(vcpu)
        if take(vcpu, Request.REQ_TRIPLE_FAULT):
            return 1
        if vcpu.mmu.root.hpa == Hpa.INVALID_PAGE:
            result: cython.int = mmu_load(vcpu)
            if result < 0:
                return result
            continue
        if not vcpu.requests:
            vcpu.pdptrs_available = False
            return 0
