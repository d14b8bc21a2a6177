# SPDX-License-Identifier: GPL-2.0-only
"""Writes of control registers and EFER: what they mean for the MMU. A function returns False where the CPU
raises #GP(0); then nothing has changed. Rules: SDM vol. 3 sections 2.5, 4.1 and 4.10.4.1, and KVM's own.
"""

import cython
from cython.cimports.libc.string import memcmp, memcpy
from cython.cimports.shadowmmu.engine.arena.state import PREV_ROOTS, KvmMmuPtr, KvmVcpuPtr, Request, u64
from cython.cimports.shadowmmu.engine.arena.tlb import make_request
from cython.cimports.shadowmmu.engine.cpu.legal import is_illegal_gpa, is_valid_cr0, is_valid_cr4, is_valid_efer, is_valid_sregs
from cython.cimports.shadowmmu.engine.guest.mmu import init_mmu
from cython.cimports.shadowmmu.engine.guest.walker import load_pdptrs
from cython.cimports.shadowmmu.engine.roots.roots import RootMask, free_roots, mmu_unload, new_pgd, reset_context
from cython.cimports.shadowmmu.x86.control import Cr0, Cr3, Cr4, Efer, paging_levels


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_pae_paging(vcpu: KvmVcpuPtr) -> cython.bint:
    return paging_levels(vcpu.cr0, vcpu.cr4, vcpu.efer) == 3


def reload_pdptrs(vcpu: KvmVcpuPtr, cr3: u64) -> cython.bint:
    """load_pdptrs of a register write. Other values than before mean another root, even if CR3 is the same."""
    mmu: KvmMmuPtr = vcpu.walk_mmu
    old: u64[4]
    memcpy(old, mmu.pdptrs, 32)
    if not load_pdptrs(vcpu, cr3):
        return False
    if not vcpu.kvm.tdp and memcmp(old, mmu.pdptrs, 32):
        free_roots(vcpu.kvm, mmu, RootMask.ROOT_CURRENT)
    return True


def set_cr0(vcpu: KvmVcpuPtr, value: u64) -> cython.bint:
    """kvm_set_cr0, with EFER.LMA following CR0.PG when EFER.LME is set."""
    old: u64 = vcpu.cr0
    value |= Cr0.ET
    if not is_valid_cr0(value):
        return False
    turning_on: cython.bint = value & Cr0.PG and not old & Cr0.PG
    if turning_on and vcpu.efer & Efer.LME and not vcpu.cr4 & Cr4.PAE:
        return False
    pdptr_bits: u64 = Cr0.CD | Cr0.NW | Cr0.PG
    pae: cython.bint = value & Cr0.PG and vcpu.cr4 & Cr4.PAE and not vcpu.efer & Efer.LME
    if pae and (value ^ old) & pdptr_bits and not reload_pdptrs(vcpu, vcpu.cr3):
        return False
    if not value & Cr0.PG and vcpu.cr4 & Cr4.PCIDE:
        return False
    if turning_on and vcpu.efer & Efer.LME:
        vcpu.efer |= Efer.LMA
    elif not value & Cr0.PG:
        vcpu.efer &= ~cython.cast(u64, Efer.LMA)
    vcpu.cr0 = value
    if value ^ old == Cr0.WP and not value & Cr0.PG and vcpu.kvm.rules.wp_needs_paging:
        return True
    if vcpu.kvm.tdp and value ^ old == Cr0.WP:
        init_mmu(vcpu)
        return True
    if old & Cr0.PG and not value & Cr0.PG:
        make_request(vcpu, Request.REQ_TLB_FLUSH_GUEST)
    if (value ^ old) & (Cr0.PG | Cr0.WP):
        reset_context(vcpu)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def invalidate_pcid(vcpu: KvmVcpuPtr, pcid: u64) -> cython.void:
    """kvm_invalidate_pcid: a CR3 write flushes one PCID. Roots cached for it would be stale when they come back."""
    if vcpu.kvm.tdp:
        make_request(vcpu, Request.REQ_TLB_FLUSH_GUEST)
        return
    pcide: cython.bint = (vcpu.cr4 & Cr4.PCIDE) != 0
    if not pcide or vcpu.cr3 & Cr3.PCID_MASK == pcid:
        make_request(vcpu, Request.REQ_MMU_SYNC)
        make_request(vcpu, Request.REQ_TLB_FLUSH_CURRENT)
    if not pcide:
        return
    mask: u64 = 0
    i: cython.int
    for i in range(PREV_ROOTS):
        if vcpu.mmu.prev_roots[i].pgd & Cr3.PCID_MASK == pcid:
            mask |= cython.cast(u64, 2) << i
    free_roots(vcpu.kvm, vcpu.mmu, mask)


def set_cr3(vcpu: KvmVcpuPtr, value: u64) -> cython.bint:
    """kvm_set_cr3. PAE: the PDPTEs are loaded always, and it is they that make a new root, not the address."""
    flush: cython.bint = True
    pcid: u64 = 0
    if vcpu.cr4 & Cr4.PCIDE:
        flush = not value & Cr3.NOFLUSH
        value &= ~cython.cast(u64, Cr3.NOFLUSH)
        pcid = value & Cr3.PCID_MASK
    pae: cython.bint = is_pae_paging(vcpu)
    if value != vcpu.cr3 or pae:
        if is_illegal_gpa(vcpu.kvm, value) or (pae and not reload_pdptrs(vcpu, value)):
            return False
        if value != vcpu.cr3:
            new_pgd(vcpu, value)
        vcpu.cr3 = value
    if flush:
        invalidate_pcid(vcpu, pcid)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cr4_flushes(vcpu: KvmVcpuPtr, old: u64, value: u64) -> cython.void:
    """kvm_post_set_cr4: role changes drop all roots; PGE and PCIDE off flush everything, PAE and SMEP on this context."""
    role_bits: u64 = Cr4.PSE | Cr4.PAE | Cr4.LA57 | Cr4.SMEP | Cr4.SMAP | Cr4.PKE
    if (value ^ old) & role_bits:
        reset_context(vcpu)
    # Turning PCIDs on keeps TLB entries, but cached roots might be taken for those of a PCID later.
    if not vcpu.kvm.tdp and value & Cr4.PCIDE and not old & Cr4.PCIDE:
        mmu_unload(vcpu)
    if (value ^ old) & Cr4.PGE or (old & Cr4.PCIDE and not value & Cr4.PCIDE):
        make_request(vcpu, Request.REQ_TLB_FLUSH_GUEST)
    elif (value ^ old) & Cr4.PAE or (value & Cr4.SMEP and not old & Cr4.SMEP):
        make_request(vcpu, Request.REQ_TLB_FLUSH_CURRENT)


def set_cr4(vcpu: KvmVcpuPtr, value: u64) -> cython.bint:
    """kvm_set_cr4: LA57 stays in long mode, PCIDE begins there with PCID 0, and a PAE guest's PDPTEs are read anew. False: #GP."""
    old: u64 = vcpu.cr4
    if not is_valid_cr4(vcpu.kvm, value):
        return False
    pdptr_bits: u64 = Cr4.PGE | Cr4.PSE | Cr4.PAE | Cr4.SMEP
    if vcpu.efer & Efer.LMA:
        if not value & Cr4.PAE or (value ^ old) & Cr4.LA57:
            return False
    elif vcpu.cr0 & Cr0.PG and value & Cr4.PAE and (value ^ old) & pdptr_bits and not reload_pdptrs(vcpu, vcpu.cr3):
        return False
    if value & Cr4.PCIDE and not old & Cr4.PCIDE and (vcpu.cr3 & Cr3.PCID_MASK or not vcpu.efer & Efer.LMA):
        return False
    vcpu.cr4 = value
    cr4_flushes(vcpu, old, value)
    return True


def set_efer(vcpu: KvmVcpuPtr, value: u64) -> cython.bint:
    """set_efer: LME cannot change while paging is on; LMA is the CPU's. LME starts the MMU over although no role has it."""
    old: u64 = vcpu.efer
    offered: cython.bint = not value & vcpu.kvm.efer_reserved
    if not offered or not is_valid_efer(vcpu.kvm, value) or (vcpu.cr0 & Cr0.PG and (value ^ old) & Efer.LME):
        return False
    vcpu.efer = (value & ~cython.cast(u64, Efer.LMA)) | (old & Efer.LMA)
    if (vcpu.efer ^ old) & (Efer.LME | Efer.NXE):
        reset_context(vcpu)
    return True


def set_smm(vcpu: KvmVcpuPtr, smm: cython.bint) -> cython.void:
    """kvm_smm_changed: the roles and the memslots of another address space, so all roots go at once."""
    vcpu.smm = smm
    reset_context(vcpu)


def set_sregs(vcpu: KvmVcpuPtr, cr0: u64, cr3: u64, cr4: u64, efer: u64) -> cython.bint:
    """KVM_SET_SREGS: take all registers at once, and start over if one is another (or PAE). False: they cannot be together,
    or a PAE CR3 has bad PDPTEs."""
    if not is_valid_sregs(vcpu.kvm, cr0, cr3, cr4, efer):
        return False
    changed: cython.bint = vcpu.cr3 != cr3 or vcpu.efer != efer or vcpu.cr0 != cr0 or vcpu.cr4 != cr4
    vcpu.cr3 = cr3
    vcpu.efer = efer
    vcpu.cr0 = cr0
    vcpu.cr4 = cr4
    good: cython.bint = True
    if is_pae_paging(vcpu):
        good = reload_pdptrs(vcpu, cr3)
        changed = True
    if changed:
        reset_context(vcpu)
        if vcpu.kvm.rules.sregs_flush:
            make_request(vcpu, Request.REQ_TLB_FLUSH_GUEST)
    return good
