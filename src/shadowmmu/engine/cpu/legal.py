# SPDX-License-Identifier: GPL-2.0-only
"""Register states that a CPU can be in: what is asked before KVM_SET_SREGS or an entry of L2 takes any of them.

Nothing here changes a thing. What is not the MMU's in a state of L2 (EFER.SVME, DR6, segments) is the machine's to check.
Rules: SDM vol. 3 sections 2.5, 24.6.11, 26.2.1.1 and 26.3.1.1; APM vol. 2 sections 15.5.1, 15.19 and 15.25.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.state import KvmPtr, KvmVcpuPtr, u64
from cython.cimports.shadowmmu.x86.control import Cr0, Cr4, Efer
from cython.cimports.shadowmmu.x86.ept import Eptp
from cython.cimports.shadowmmu.x86.reserved import rsvd_bits


def is_valid_cr0(value: u64) -> cython.bint:
    """kvm_is_valid_cr0: 32 bits, no NW without CD, no PG without PE."""
    if value >> 32 or (value & Cr0.NW and not value & Cr0.CD):
        return False
    return not value & Cr0.PG or (value & Cr0.PE) != 0


def is_valid_cr4(kvm: KvmPtr, value: u64) -> cython.bint:
    """kvm_is_valid_cr4: no bit that the engine does not know or the guest's CPUID does not offer.

    An L1's nested page table has the levels of its own paging, so with a 4-level NPT no guest is offered LA57.
    """
    known: u64 = (
        Cr4.VME | Cr4.PVI | Cr4.TSD | Cr4.DE | Cr4.PSE | Cr4.PAE | Cr4.MCE | Cr4.PGE | Cr4.PCE | Cr4.OSFXSR
        | Cr4.OSXMMEXCPT | Cr4.UMIP | Cr4.LA57 | Cr4.VMXE | Cr4.FSGSBASE | Cr4.PCIDE | Cr4.OSXSAVE | Cr4.SMEP
        | Cr4.SMAP | Cr4.PKE
    )  # fmt: skip
    if kvm.tdp and not kvm.ept and kvm.host_levels < 5:
        known &= ~cython.cast(u64, Cr4.LA57)
    return not value & (~known | kvm.cr4_reserved)


def is_valid_efer(kvm: KvmPtr, value: u64) -> cython.bint:
    """kvm_valid_efer: no bit that the engine does not know; a host of 3 levels, which is a 32-bit kernel, has no long mode."""
    known: u64 = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE | Efer.SVME | Efer.LMSLE | Efer.FFXSR
    if kvm.host_levels == 3:
        known &= ~cython.cast(u64, Efer.LME | Efer.LMA)
    return not value & ~known


def is_illegal_gpa(kvm: KvmPtr, gpa: u64) -> cython.bint:
    """kvm_vcpu_is_illegal_gpa: an address that the guest's CPU has no wires for."""
    return (gpa & rsvd_bits(kvm.maxphyaddr, 63)) != 0


def is_valid_sregs(kvm: KvmPtr, cr0: u64, cr3: u64, cr4: u64, efer: u64) -> cython.bint:
    """kvm_is_valid_sregs: 64-bit mode needs PAE, LMA and a CR3 without reserved bits, any other has no LMA."""
    if efer & Efer.LME and cr0 & Cr0.PG:
        if not cr4 & Cr4.PAE or not efer & Efer.LMA or is_illegal_gpa(kvm, cr3):
            return False
    elif efer & Efer.LMA:
        return False
    return is_valid_cr4(kvm, cr4) and is_valid_cr0(cr0) and is_valid_efer(kvm, efer)


# --- L2


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_valid_vmrun_state(kvm: KvmPtr, cr0: u64, cr4: u64, efer: u64) -> cython.bint:
    """nested_vmcb_check_save. VMRUN may load PG without PE (paged real mode), and takes EFER.LMA as it comes."""
    if cr0 >> 32 or (cr0 & Cr0.NW and not cr0 & Cr0.CD):
        return False
    if efer & Efer.LME and cr0 & Cr0.PG and not (cr4 & Cr4.PAE and cr0 & Cr0.PE):
        return False
    return is_valid_cr4(kvm, cr4) and is_valid_efer(kvm, efer)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_valid_vmentry_state(kvm: KvmPtr, cr0: u64, cr4: u64, efer: u64) -> cython.bint:
    """nested_vmx_check_guest_state. NW and CD are never checked; LMA is the control "IA-32e mode guest"."""
    if cr0 >> 32 or (cr0 & Cr0.PG and not cr0 & Cr0.PE):
        return False
    if efer & Efer.LMA and not (cr0 & Cr0.PG and cr4 & Cr4.PAE):
        return False
    if cr0 & Cr0.PG and (efer & Efer.LMA != 0) != (efer & Efer.LME != 0):
        return False
    if cr4 & Cr4.PCIDE and not efer & Efer.LMA:
        return False
    return is_valid_cr4(kvm, cr4) and is_valid_efer(kvm, efer)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_valid_eptp(kvm: KvmPtr, eptp: u64) -> cython.bint:
    """nested_vmx_check_eptp: write-back, 4 levels (5 where the host has them), no reserved bit, A/D flags only if offered."""
    if eptp & Eptp.WALK_MEMTYPE != Eptp.WRITE_BACK or is_illegal_gpa(kvm, eptp) or eptp & Eptp.RESERVED:
        return False
    if eptp & Eptp.AD_ENABLED and not kvm.ept_ad:
        return False
    levels: cython.int = ((eptp & Eptp.WALK_LENGTH_MASK) >> Eptp.WALK_LENGTH_SHIFT) + 1
    return levels == 4 or (levels == 5 and kvm.host_levels == 5)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_valid_ncr3(vcpu: KvmVcpuPtr, ncr3: u64) -> cython.bint:
    """Nested paging was offered, L1 pages itself, and nCR3 is a physical address. Its low bits are ignored, as CR3's are."""
    return vcpu.kvm.tdp and (vcpu.cr0 & Cr0.PG) != 0 and not is_illegal_gpa(vcpu.kvm, ncr3)


def is_valid_l2(vcpu: KvmVcpuPtr, cr0: u64, cr4: u64, efer: u64, paging: NestedPaging, root: u64) -> cython.bint:
    """L2's registers, but for CR3 and its PDPTEs, and the root of L1's nested tables are such that it can be entered."""
    if paging == NestedPaging.NESTED_NPT and not is_valid_ncr3(vcpu, root):
        return False
    if paging == NestedPaging.NESTED_EPT and not is_valid_eptp(vcpu.kvm, root):
        return False
    if vcpu.kvm.vmx:
        return is_valid_vmentry_state(vcpu.kvm, cr0, cr4, efer)
    return is_valid_vmrun_state(vcpu.kvm, cr0, cr4, efer)
