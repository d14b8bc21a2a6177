# SPDX-License-Identifier: GPL-2.0-only
"""Register states and EPT pointers that no CPU can have are refused before anything is taken, and all others are taken.

What is legal is said here once more, from the manuals: SDM vol. 3 sections 2.5, 24.6.11 and 26.3.1.1, APM vol. 2 15.5.1.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowmmu import ROOT_DESIGNS, Vcpu, Vm
from shadowmmu.check.audit import audit
from shadowmmu.x86.control import Cr0, Cr4, Efer

PE, NW, CD, PG = int(Cr0.PE), int(Cr0.NW), int(Cr0.CD), int(Cr0.PG)
LME, LMA = int(Efer.LME), int(Efer.LMA)
UNKNOWN_CR4, UNKNOWN_EFER = 1 << 31, 1 << 40
L1 = {"cr0": PE | PG, "cr3": 0x1000, "cr4": int(Cr4.PAE), "efer": LME | LMA}


def some_of(*bits: int) -> st.SearchStrategy[int]:
    return st.lists(st.sampled_from(bits), max_size=len(bits)).map(lambda chosen: sum(set(chosen)))


CR0 = some_of(PE, PG, NW, CD, int(Cr0.WP)) | some_of(PE, PG, CD, 1 << 32, 1 << 63)
CR4 = some_of(int(Cr4.PAE), int(Cr4.PSE), int(Cr4.PCIDE), int(Cr4.SMEP)) | some_of(int(Cr4.PAE), UNKNOWN_CR4)
EFER = some_of(LME, LMA, int(Efer.NXE)) | some_of(LME, LMA, UNKNOWN_EFER)


def known(cr4: int, efer: int) -> bool:
    return not cr4 & UNKNOWN_CR4 and not efer & UNKNOWN_EFER


def is_legal(cr0: int, cr4: int, efer: int) -> bool:
    """A state of a running CPU, as KVM_SET_SREGS asks for one."""
    long_mode = bool(efer & LME and cr0 & PG)
    modes = bool(efer & LMA) == long_mode and (not long_mode or bool(cr4 & Cr4.PAE))
    return cr0 >> 32 == 0 and not (cr0 & NW and not cr0 & CD) and not (cr0 & PG and not cr0 & PE) and modes and known(cr4, efer)


def vmrun_takes(cr0: int, cr4: int, efer: int) -> bool:
    """Paged real mode is legal, and LMA is not looked at."""
    long_mode = bool(efer & LME and cr0 & PG)
    return cr0 >> 32 == 0 and not (cr0 & NW and not cr0 & CD) and (not long_mode or bool(cr4 & Cr4.PAE and cr0 & PE)) and known(cr4, efer)


def vmentry_takes(cr0: int, cr4: int, efer: int) -> bool:
    """NW and CD are not looked at, LMA is the control "IA-32e mode guest"."""
    if cr0 >> 32 or (cr0 & PG and not cr0 & PE) or (cr4 & Cr4.PCIDE and not efer & LMA) or not known(cr4, efer):
        return False
    if efer & LMA and not (cr0 & PG and cr4 & Cr4.PAE):
        return False
    return not cr0 & PG or bool(efer & LME) == bool(efer & LMA)


def registers(vcpu: Vcpu) -> tuple[int, int, int, int]:
    return vcpu.cr0, vcpu.cr3, vcpu.cr4, vcpu.efer


@settings(max_examples=300)
@given(cr0=CR0, cr4=CR4, efer=EFER, roots=st.sampled_from(list(ROOT_DESIGNS)))
def test_set_sregs_refuses_what_no_cpu_can_have(cr0: int, cr4: int, efer: int, roots: str) -> None:
    vcpu = Vm(memory_mib=1, roots=roots).vcpus[0]
    before = registers(vcpu)
    taken = vcpu.set_sregs(cr0, 0x2000, cr4, efer)
    assert taken == is_legal(cr0, cr4, efer)
    assert registers(vcpu) == ((cr0, 0x2000, cr4, efer) if taken else before)
    vcpu.enter()
    assert audit(vcpu.vm) == []


@settings(max_examples=300)
@given(cr0=CR0, cr4=CR4, efer=EFER)
def test_vmrun_says_beforehand_what_it_takes(cr0: int, cr4: int, efer: int) -> None:
    vcpu = Vm(memory_mib=1).vcpus[0]
    assert vcpu.set_sregs(**L1)
    before = registers(vcpu), vcpu.guest_mode, vcpu.requests
    assert vcpu.may_vmrun(cr0, cr4, efer) == vmrun_takes(cr0, cr4, efer)
    assert (registers(vcpu), vcpu.guest_mode, vcpu.requests) == before


@pytest.mark.parametrize("tdp", [False, True])
def test_a_refused_vmrun_leaves_what_l1_had(tdp: bool) -> None:
    vcpu = Vm(memory_mib=1, tdp=tdp).vcpus[0]
    assert vcpu.set_sregs(**L1)
    root = vcpu.enter().root
    assert not vcpu.nested_vmrun(PE, 0x2000, UNKNOWN_CR4, 0)
    assert audit(vcpu.vm) == [] and vcpu.root == root
    assert vcpu.nested_vmexit()
    vcpu.enter()
    assert audit(vcpu.vm) == []


def enter_l2(vcpu: Vcpu, state: tuple[int, int, int, int], root: int) -> bool:
    return vcpu.nested_vmentry(*state, root) if vcpu.vm.config.vendor == "vmx" else vcpu.nested_vmrun(*state, root)


@settings(max_examples=300)
@given(cr0=CR0, cr4=CR4, efer=EFER, vendor=st.sampled_from(("svm", "vmx")))
def test_an_l2_state_that_cannot_be_is_refused_and_l1_goes_on(cr0: int, cr4: int, efer: int, vendor: str) -> None:
    vcpu = Vm(memory_mib=1, tdp=True, vendor=vendor).vcpus[0]
    assert vcpu.set_sregs(**L1)
    vcpu.enter()
    taken = enter_l2(vcpu, (cr0, 0x2000, cr4, efer), 0x301E)
    assert taken == (vmrun_takes if vendor == "svm" else vmentry_takes)(cr0, cr4, efer)
    if not taken:
        assert registers(vcpu) == tuple(L1.values()) and vcpu.ncr3 is None
    vcpu.enter()
    assert vcpu.nested_vmexit() and registers(vcpu) == tuple(L1.values())
    vcpu.enter()
    assert vcpu.vm.bugs() == [] and audit(vcpu.vm) == []


@settings(max_examples=300)
@given(
    levels=st.integers(0, 7),
    memory_type=st.integers(0, 7),
    other=some_of(0x40, 0x80, 0x100, 0x800, 1 << 39, 1 << 40, 1 << 63),
    host_levels=st.sampled_from((3, 4, 5)),
)
def test_an_ept_pointer_is_looked_at_as_vm_entry_does(levels: int, memory_type: int, other: int, host_levels: int) -> None:
    """Only write-back is offered; bit 39 is the highest of the guest's 40 address bits."""
    vm = Vm(memory_mib=1, tdp=True, vendor="vmx", host_levels=host_levels)
    vcpu = vm.vcpus[0]
    offered = levels == 3 or (levels == 4 and host_levels == 5)
    legal = memory_type == 6 and offered and not other & ~(0x40 | 1 << 39)
    assert vcpu.nested_vmentry(1, 0, 0, 0, 0x1000 | levels << 3 | memory_type | other) == legal
    assert vcpu.nested_vmexit()
    vcpu.enter()
    assert vm.bugs() == [] and audit(vm) == []


def test_nested_paging_needs_an_l1_that_pages_and_was_offered_it() -> None:
    """APM vol. 2 section 15.25: and no bit of nCR3 beyond the physical addresses."""
    for tdp, cr0, ncr3 in ((False, PE | PG, 0x1000), (True, PE, 0x1000), (True, PE | PG, 1 << 40)):
        vcpu = Vm(memory_mib=1, tdp=tdp).vcpus[0]
        assert vcpu.set_sregs(**{**L1, "cr0": cr0, "efer": LME | (LMA if cr0 & PG else 0)})
        assert not vcpu.may_vmrun(PE, 0, 0, ncr3) and vcpu.may_vmrun(PE, 0, 0)
        assert not vcpu.nested_vmrun(PE, 0, 0, 0, ncr3) and vcpu.nested_vmexit()
