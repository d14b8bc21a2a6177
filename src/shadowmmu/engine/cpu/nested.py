# SPDX-License-Identifier: GPL-2.0-only
"""Nesting: L1 runs L2 (VMRUN, VM entry) and gets it back (#VMEXIT, VM exit), as far as the MMU is concerned.

With nested paging the vCPU switches to `guest_mmu`, which shadows L1's NPT or EPT, and `nested_mmu` walks L2's own
tables in software. Without, `root_mmu` goes on with L2's registers and roles that say guest_mode.

Roles are taken before CR3 is switched, so the outgoing root may be of another kind than the new roles speak of:
the switch asks the root itself (hazard H1).
"""

import cython
from cython.cimports.shadowmmu.engine.arena.state import Hpa, KvmPtr, KvmVcpuPtr, NestedStatePtr, Request, u64
from cython.cimports.shadowmmu.engine.arena.tlb import make_request
from cython.cimports.shadowmmu.engine.cpu.legal import NestedPaging, is_illegal_gpa, is_valid_l2
from cython.cimports.shadowmmu.engine.cpu.registers import reload_pdptrs
from cython.cimports.shadowmmu.engine.cpu.requests import serve
from cython.cimports.shadowmmu.engine.guest.mmu import init_mmu, init_shadow_ept, init_shadow_npt
from cython.cimports.shadowmmu.engine.roots.roots import mmu_load, new_pgd
from cython.cimports.shadowmmu.x86.control import Cr0, Cr4, Efer, paging_levels


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def transition_flush(vcpu: KvmVcpuPtr) -> cython.void:
    """nested_svm_transition_tlb_flush: L1 and L2 share an ASID here, so every switch syncs and flushes."""
    make_request(vcpu, Request.REQ_MMU_SYNC)
    make_request(vcpu, Request.REQ_TLB_FLUSH_CURRENT)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_cr3(vcpu: KvmVcpuPtr, cr3: u64, nested_paging: cython.bint) -> cython.bint:
    """nested_svm_load_cr3: take CR3 and the roles of the registers already loaded. False: an illegal CR3 or PDPTE."""
    if is_illegal_gpa(vcpu.kvm, cr3):
        return False
    if not nested_paging and paging_levels(vcpu.cr0, vcpu.cr4, vcpu.efer) == 3 and not reload_pdptrs(vcpu, cr3):
        return False
    vcpu.cr3 = cr3
    init_mmu(vcpu)
    if not nested_paging:
        new_pgd(vcpu, cr3)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def use_nested_paging(vcpu: KvmVcpuPtr, paging: NestedPaging, exec_only: cython.bint, huge_level: cython.int) -> cython.void:
    """Shadow L1's nested tables from now on; their format follows L1's registers (NPT) or the EPT pointer."""
    vcpu.mmu = cython.address(vcpu.guest_mmu)
    if paging == NestedPaging.NESTED_EPT:
        init_shadow_ept(vcpu, vcpu.nested.ncr3, exec_only, huge_level)
    else:
        init_shadow_npt(vcpu, vcpu.nested.l1_cr4, vcpu.nested.l1_efer)
    new_pgd(vcpu, vcpu.nested.ncr3)
    vcpu.walk_mmu = cython.address(vcpu.nested_mmu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def nested_enter(
    vcpu: KvmVcpuPtr,
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    paging: NestedPaging,
    root: u64,
    exec_only: cython.bint,
    huge_level: cython.int,
) -> cython.bint:
    """enter_svm_guest_mode: L2 runs with these registers, on the nested tables at `root`. False: invalid L2 state.

    A state that is illegal by itself is not taken: the registers stay L1's until `nested_exit`.
    """
    kvm: KvmPtr = vcpu.kvm
    nested: NestedStatePtr = cython.address(vcpu.nested)
    nested.l1_cr0 = vcpu.cr0
    nested.l1_cr3 = vcpu.cr3
    nested.l1_cr4 = vcpu.cr4
    nested.l1_efer = vcpu.efer
    nested.guest_mode = True
    nested.npt = False
    if not is_valid_l2(vcpu, cr0, cr4, efer, paging, root):
        return False
    nested.npt = paging != NestedPaging.NESTED_NONE
    nested.ncr3 = root
    if kvm.rules.vmrun_drops_lma and not efer & Efer.LME:
        efer &= ~cython.cast(u64, Efer.LMA)
    if nested.npt:
        vcpu.pdptrs_available = vcpu.pdptrs_available and not kvm.rules.vmrun_reloads_pdptes
        use_nested_paging(vcpu, paging, exec_only, huge_level)
    transition_flush(vcpu)
    vcpu.efer = efer
    vcpu.cr0 = cr0
    vcpu.cr4 = cr4
    return load_cr3(vcpu, cr3, nested.npt)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def l1_cr4_after_exit(vcpu: KvmVcpuPtr) -> u64:
    """The CR4 that L1 gets back: its own, but for a quirk of Linux that is kept.

    Under shadow paging, when only one of L1 and L2 has paging on, svm_set_cr0 rewrites the CR4 of the VMCB that is
    loaded, by then L1's, from the vCPU's CR4, still L2's; svm_set_cr4 reads it back. A 2-level L1 comes back with PAE.
    """
    nested: NestedStatePtr = cython.address(vcpu.nested)
    if vcpu.kvm.tdp or vcpu.kvm.vmx or not (vcpu.cr0 ^ nested.l1_cr0) & Cr0.PG:
        return nested.l1_cr4
    if nested.l1_cr0 & Cr0.PG:
        return vcpu.cr4 | Cr4.PAE
    return (vcpu.cr4 | Cr4.PAE) & ~cython.cast(u64, Cr4.SMEP | Cr4.SMAP | Cr4.PKE)


def nested_exit(vcpu: KvmVcpuPtr) -> cython.bint:
    """nested_svm_vmexit: back to L1 and its registers. False: L1's own CR3 has become illegal (it shuts down)."""
    nested: NestedStatePtr = cython.address(vcpu.nested)
    nested.guest_mode = False
    nested.npt = False
    cr4: u64 = l1_cr4_after_exit(vcpu)
    vcpu.efer = nested.l1_efer
    vcpu.cr0 = nested.l1_cr0
    vcpu.cr4 = cr4
    transition_flush(vcpu)
    vcpu.mmu = cython.address(vcpu.root_mmu)
    vcpu.walk_mmu = cython.address(vcpu.root_mmu)
    return load_cr3(vcpu, nested.l1_cr3, False)


def nested_exit_at_entry(vcpu: KvmVcpuPtr) -> cython.bint:
    """`nested_exit` while L2 is being entered: an exception for it that L1 takes, or no root can be made for it.

    vcpu_enter_guest has served requests by then, and loads a root before it sees those of the exit (a sync and a flush).
    """
    serve(vcpu)
    if not nested_exit(vcpu):
        return False
    if vcpu.mmu.root.hpa == Hpa.INVALID_PAGE:
        mmu_load(vcpu)
    return True
