# SPDX-License-Identifier: GPL-2.0-only
"""An MMU's roles: what the guest's registers make of them, and the tables derived from them.

A vCPU has three MMUs. `root_mmu` serves the guest itself, and L2 when nested paging is off. `guest_mmu` shadows
the NPT or EPT that L1 made for L2. `nested_mmu` builds nothing: it walks L2's own tables for the emulator.

`cpu_role` says how the guest's tables are read, `root_role` what the shadow tables are.

Inline in the .pxd, since they run in every fault: `guest_level`, `root_level`, `is_direct`, `guest_pgd`, `get_pdptr`.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Access, Ext, Role, RoleShift, set_level
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    PREV_ROOTS,
    GuestFormat,
    Hpa,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    gpa_t,
    p_spte,
    role_t,
    u32,
    u64,
)
from cython.cimports.shadowmmu.engine.memory.guest_memory import read_guest
from cython.cimports.shadowmmu.x86.control import Cr0, Cr3, Cr4, Efer, paging_levels
from cython.cimports.shadowmmu.x86.ept import Eptp
from cython.cimports.shadowmmu.x86.pferr import Pferr
from cython.cimports.shadowmmu.x86.reserved import GateBits, ept_rsvd_bits, legacy_rsvd_bits

# --- roles


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def calc_cpu_role(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, cr0: u64, cr4: u64, efer: u64) -> cython.void:
    """kvm_calc_cpu_role: how these registers make the CPU read the guest's tables."""
    role: role_t = cython.cast(role_t, Access.ALL) << RoleShift.ACCESS_SHIFT
    role |= cython.cast(role_t, vcpu.smm) << RoleShift.SMM_SHIFT
    if vcpu.nested.guest_mode:
        role |= Role.GUEST_MODE
    ext: u32 = Ext.VALID
    if not cr0 & Cr0.PG:
        mmu.cpu_role = role | Role.DIRECT
        mmu.cpu_ext = ext
        return
    if efer & Efer.NXE:
        role |= Role.EFER_NX
    if cr0 & Cr0.WP:
        role |= Role.CR0_WP
    if cr4 & Cr4.SMEP and (not cr0 & Cr0.WP or vcpu.kvm.rules.smep_in_role):
        role |= Role.SMEP_ANDNOT_WP
    if not cr0 & Cr0.WP and cr4 & Cr4.SMAP:
        role |= Role.SMAP_ANDNOT_WP
    if not cr4 & Cr4.PAE:
        role |= Role.HAS_4_BYTE_GPTE
    role |= cython.cast(role_t, paging_levels(cr0, cr4, efer))
    ext |= (Ext.CR4_SMEP if cr4 & Cr4.SMEP else 0) | (Ext.CR4_SMAP if cr4 & Cr4.SMAP else 0) | (Ext.CR4_PSE if cr4 & Cr4.PSE else 0)
    if efer & Efer.NXE or cr4 & Cr4.SMEP:
        ext |= Ext.HAS_PFERR_FETCH
    if efer & Efer.LMA:
        ext |= Ext.EFER_LMA | (Ext.CR4_PKE if cr4 & Cr4.PKE else 0) | (Ext.CR4_LA57 if cr4 & Cr4.LA57 else 0)
    mmu.cpu_role = role
    mmu.cpu_ext = ext


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def tdp_level(kvm: KvmPtr) -> cython.int:
    """kvm_mmu_get_tdp_level: NPT has the levels of the host's paging; EPT has 4, and a fifth only beyond 48 address bits."""
    if kvm.ept:
        return 5 if kvm.host_levels == 5 and kvm.maxphyaddr > 48 else 4
    return kvm.host_levels


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def tdp_role(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr) -> role_t:
    """kvm_calc_tdp_mmu_root_page_role: direct tables, nothing of the guest's paging in them."""
    role: role_t = mmu.cpu_role & (Role.SMM | Role.GUEST_MODE)
    role |= Role.DIRECT | Role.CR0_WP | Role.EFER_NX | cython.cast(role_t, Access.ALL) << RoleShift.ACCESS_SHIFT
    if vcpu.kvm.ept and not vcpu.kvm.ept_ad:
        role |= Role.AD_DISABLED
    return role | cython.cast(role_t, tdp_level(vcpu.kvm))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def shadow_role(mmu: KvmMmuPtr) -> role_t:
    """The root role of shadow paging: at least 3 levels, and NX always on in the hardware."""
    level: cython.int = guest_level(mmu)
    return set_level(mmu.cpu_role, level if level > 3 else 3) | Role.EFER_NX


# --- what follows from the roles


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def update_permissions(mmu: KvmMmuPtr, ept: cython.bint) -> cython.void:
    """update_permission_bitmask: for each error code (its bits 4-1) the set of access values that fault.

    Bit 3 of the code, RSVD, stands in the index for "EFLAGS.AC overrides SMAP".
    """
    wp: cython.bint = (mmu.cpu_role & Role.CR0_WP) != 0
    nx: cython.bint = (mmu.cpu_role & Role.EFER_NX) != 0
    index: cython.int
    access: cython.int
    for index in range(16):
        code: cython.int = index << 1
        faults: cython.int = 0
        for access in range(8):
            supervisor: cython.bint = not code & Pferr.USER
            fault: cython.bint = (code & Pferr.USER) != 0 and not access & Access.USER
            if code & Pferr.WRITE and not access & Access.WRITE and (ept or wp or not supervisor):
                fault = True
            if code & Pferr.FETCH and not access & Access.EXEC and (ept or nx):
                fault = True
            if not ept and supervisor and access & Access.USER:
                if code & Pferr.FETCH and mmu.cpu_ext & Ext.CR4_SMEP:
                    fault = True
                if not code & (Pferr.FETCH | Pferr.RSVD) and mmu.cpu_ext & Ext.CR4_SMAP:
                    fault = True
            faults |= fault << access
        mmu.permissions[index] = faults


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def update_pkru_mask(mmu: KvmMmuPtr) -> cython.void:
    """update_pkru_bitmask: for each error code (bits 4-1, RSVD's place taken by the page's U) which of PKRU's AD and WD bits fault."""
    mmu.pkru_mask = 0
    if not mmu.cpu_ext & Ext.CR4_PKE:
        return
    index: cython.int
    for index in range(16):
        code: cython.int = index << 1
        user_page: cython.bint = (code & Pferr.RSVD) != 0
        data: cython.bint = not code & Pferr.FETCH
        check: cython.bint = user_page and data
        check_write: cython.bint = check and (code & Pferr.WRITE) != 0 and ((code & Pferr.USER) != 0 or (mmu.cpu_role & Role.CR0_WP) != 0)
        bits: u32 = (1 if check else 0) | (2 if check_write else 0)
        mmu.pkru_mask |= bits << code


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def guest_gates(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr) -> cython.int:
    """is_cpuid_PSE36, guest_can_use_gbpages: the features that decide which bits of its entries a guest must leave 0.

    KVM takes PSE-36 for granted.
    """
    gates: cython.int = GateBits.PSE36
    if vcpu.kvm.guest_1g:
        gates |= GateBits.HUGE_1G
    if vcpu.kvm.guest_amd:
        gates |= GateBits.AMD
    if mmu.cpu_role & Role.EFER_NX:
        gates |= GateBits.NX_ENABLED
    if mmu.cpu_ext & Ext.CR4_PSE:
        gates |= GateBits.PSE_ENABLED
    return gates


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def reset_guest_paging_metadata(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr) -> cython.void:
    """The walker's tables: format, reserved bits, permissions, protection keys.

    In the kernel: nonpaging_init_context, paging64_init_context, paging32_init_context, reset_guest_rsvds_bits_mask.
    """
    if mmu.cpu_role & Role.DIRECT:
        mmu.format = GuestFormat.FORMAT_NONE
        return
    mmu.format = GuestFormat.FORMAT_PT32 if mmu.cpu_role & Role.HAS_4_BYTE_GPTE else GuestFormat.FORMAT_PT64
    legacy_rsvd_bits(cython.address(mmu.guest_rsvd), guest_level(mmu), vcpu.kvm.maxphyaddr, guest_gates(vcpu, mmu))
    update_permissions(mmu, False)
    update_pkru_mask(mmu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def reset_shadow_zero_bits(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, ept: cython.bint) -> cython.void:
    """What no shadow entry may have: the hardware reserves it in tables of this height.

    In the kernel: reset_shadow_zero_bits_mask, reset_tdp_shadow_zero_bits_mask, reset_ept_shadow_zero_bits_mask, with
    reserved_hpa_bits and boot_cpu_is_amd.
    """
    kvm: KvmPtr = vcpu.kvm
    if ept:
        ept_rsvd_bits(cython.address(mmu.shadow_zero), kvm.host_maxphyaddr, kvm.max_huge_level, kvm.ept_exec_only)
        return
    gates: cython.int = GateBits.HUGE_1G | GateBits.NX_ENABLED | (0 if kvm.vmx else GateBits.AMD)
    legacy_rsvd_bits(cython.address(mmu.shadow_zero), root_level(mmu), kvm.host_maxphyaddr, gates)


# --- the MMUs


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_roles(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, root_role: role_t) -> cython.void:
    """shadow_mmu_init_context: take the role of its shadow tables, and what follows from it."""
    mmu.root_role = root_role
    reset_guest_paging_metadata(vcpu, mmu)
    reset_shadow_zero_bits(vcpu, mmu, False)


def init_mmu(vcpu: KvmVcpuPtr) -> cython.void:
    """kvm_init_mmu: derive the roles of the MMU in use from the vCPU's registers. Loads and frees no root.

    In the kernel: init_kvm_tdp_mmu, kvm_init_shadow_mmu, init_kvm_softmmu, init_kvm_nested_mmu.
    """
    mmu: KvmMmuPtr = cython.address(vcpu.root_mmu)
    if vcpu.walk_mmu == cython.address(vcpu.nested_mmu):
        mmu = cython.address(vcpu.nested_mmu)
        calc_cpu_role(vcpu, mmu, vcpu.cr0, vcpu.cr4, vcpu.efer)
        reset_guest_paging_metadata(vcpu, mmu)
        return
    calc_cpu_role(vcpu, mmu, vcpu.cr0, vcpu.cr4, vcpu.efer)
    if vcpu.kvm.tdp:
        mmu.root_role = tdp_role(vcpu, mmu)
        reset_guest_paging_metadata(vcpu, mmu)
        reset_shadow_zero_bits(vcpu, mmu, vcpu.kvm.ept)
        return
    set_roles(vcpu, mmu, shadow_role(mmu))


def init_shadow_npt(vcpu: KvmVcpuPtr, cr4: u64, efer: u64) -> cython.void:
    """kvm_init_shadow_npt_mmu: roles for L1's NPT, read as L1's own registers say.

    Of CR0 only PG counts, and there are no protection keys; levels are the host's. Where SMEP does not count, it still makes
    faults tell of fetches. A 4-level NPT on a 5-level host gets a level-5 page that shadows nothing: `passthrough`.
    """
    mmu: KvmMmuPtr = cython.address(vcpu.guest_mmu)
    if vcpu.kvm.rules.npt_role_plain:
        calc_cpu_role(vcpu, mmu, Cr0.PG | Cr0.WP, cr4 & ~cython.cast(u64, Cr4.PKE | Cr4.SMAP), efer)
        mmu.cpu_role &= ~cython.cast(role_t, Role.SMEP_ANDNOT_WP)
        mmu.cpu_ext &= ~cython.cast(u32, Ext.CR4_SMEP)
    else:
        calc_cpu_role(vcpu, mmu, Cr0.PG, cr4 & ~cython.cast(u64, Cr4.PKE), efer)
    level: cython.int = vcpu.kvm.host_levels
    role: role_t = set_level(mmu.cpu_role, level)
    if level == 5 and guest_level(mmu) == 4:
        role |= Role.PASSTHROUGH
    set_roles(vcpu, mmu, role)


def init_shadow_ept(vcpu: KvmVcpuPtr, eptp: u64, exec_only: cython.bint, huge_level: cython.int) -> cython.void:
    """kvm_init_shadow_ept_mmu: roles for L1's EPT; everything comes from the EPT pointer, nothing from CRs.

    In the kernel: reset_rsvds_bits_mask_ept, kvm_calc_shadow_ept_root_page_role.
    """
    mmu: KvmMmuPtr = cython.address(vcpu.guest_mmu)
    level: role_t = ((eptp & Eptp.WALK_LENGTH_MASK) >> Eptp.WALK_LENGTH_SHIFT) + 1
    role: role_t = level | Role.GUEST_MODE | cython.cast(role_t, Access.ALL) << RoleShift.ACCESS_SHIFT
    role |= cython.cast(role_t, vcpu.smm) << RoleShift.SMM_SHIFT
    if not eptp & Eptp.AD_ENABLED:
        role |= Role.AD_DISABLED
    mmu.cpu_role = role
    mmu.cpu_ext = Ext.VALID | (Ext.EXECONLY if exec_only else 0)
    mmu.root_role = role
    mmu.format = GuestFormat.FORMAT_EPT
    mmu.pkru_mask = 0
    update_permissions(mmu, True)
    ept_rsvd_bits(cython.address(mmu.guest_rsvd), vcpu.kvm.maxphyaddr, huge_level, exec_only)
    reset_shadow_zero_bits(vcpu, mmu, True)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def low_table(kvm: KvmPtr, index: cython.int) -> p_spte:
    """A table page below 4 GiB; frame 0 stays unused."""
    return cython.cast(p_spte, kvm.frames + (cython.cast(u64, 1 + index) << PAGE_SHIFT))


def create_mmus(vcpu: KvmVcpuPtr) -> cython.void:
    """kvm_mmu_create, mmu_alloc_special_roots, __kvm_mmu_create: no root anywhere; bare tables where a 3-level root needs one below 4 GiB.

    nested_mmu never has a root, and its address stays 0, as in the kernel.
    """
    kvm: KvmPtr = vcpu.kvm
    mmus: KvmMmuPtr[2]
    mmus[0] = cython.address(vcpu.root_mmu)
    mmus[1] = cython.address(vcpu.guest_mmu)
    i: cython.int
    j: cython.int
    for i in range(2):
        mmus[i].root.hpa = Hpa.INVALID_PAGE
        for j in range(PREV_ROOTS):
            mmus[i].prev_roots[j].hpa = Hpa.INVALID_PAGE
    vcpu.guest_mmu.is_guest_mmu = True
    vcpu.nested_mmu.is_nested_mmu = True
    vcpu.mmu = mmus[0]
    vcpu.walk_mmu = mmus[0]
    if not kvm.tdp or kvm.host_levels == 3:
        vcpu.root_mmu.pae_root = low_table(kvm, 2 * vcpu.id)
    if kvm.host_levels == 3:
        vcpu.guest_mmu.pae_root = low_table(kvm, 2 * vcpu.id + 1)
    if kvm.root_ops.create_tables != cython.NULL:
        kvm.root_ops.create_tables(vcpu)


# --- reading the guest's top level


def read_pdptr(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, index: cython.int) -> u64:
    """`get_pdptr` of the NPT that L1 made, from memory."""
    value: u64 = 0
    table: gpa_t = vcpu.nested.ncr3 & Cr3.PAE_TABLE_MASK
    if not read_guest(vcpu.kvm, vcpu.smm, table + 8 * index, cython.address(value), 8):
        return 0
    return value


def is_noncanonical(vcpu: KvmVcpuPtr, gva: u64) -> cython.bint:
    """The upper bits do not repeat the highest implemented one: 48 bits, 57 with CR4.LA57."""
    shift: cython.int = 7 if vcpu.cr4 & Cr4.LA57 else 16
    return cython.cast(cython.ulonglong, cython.cast(cython.longlong, gva << shift) >> shift) != gva
