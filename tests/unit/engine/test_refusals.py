# SPDX-License-Identifier: GPL-2.0-only
"""Why the engine cannot go on: the words name the register or entry that is to blame, with its value, and whose it is."""

from __future__ import annotations

import struct

import pytest

from shadowmmu import EngineError, HostFault, TripleFault, Vcpu, Vm

OUTSIDE, PAGING, PAE, LMA = 0x7770000, 0x80000001, 0x20, 0x500
BAD_PDPTES = struct.pack("<4Q", 0x2001, 0, 0x9000001, 0)


def vcpu(roots: str, **options: object) -> Vcpu:
    """Of a VM of 8 MiB, its tables at 0x1000 with a PDPTE that leads outside, on the kernel that then shuts it down."""
    vm = Vm(memory_mib=8, roots=roots, kernel="6.1", **options)
    vm.write_guest(0x1000, BAD_PDPTES)
    return vm.vcpus[0]


def shuts_down(cpu: Vcpu, why: str) -> None:
    with pytest.raises(TripleFault) as end:
        cpu.enter()
    assert str(end.value) == f"vCPU 0: {why} leads outside guest memory"


@pytest.mark.parametrize("roots", ["special", "legacy"])
def test_a_root_that_leads_outside(roots: str) -> None:
    cpu = vcpu(roots)
    cpu.set_sregs(PAGING, OUTSIDE, PAE, 0)
    shuts_down(cpu, "CR3 0x7770000")
    if roots == "legacy":  # a special root reads no PDPTE
        cpu.set_sregs(PAGING, 0x1000, PAE, 0)
        shuts_down(cpu, "PDPTE 2, 0x9000001, of CR3 0x1000")


@pytest.mark.parametrize("roots", ["special", "legacy"])
def test_an_l2_is_told_by_what_l1_gave_it(roots: str) -> None:
    cpu = vcpu(roots, tdp=True)
    cpu.set_sregs(PAGING, 0x1000, PAE, 0)
    cpu.enter()
    assert cpu.nested_vmrun(1, 0x123000, 0, 0, ncr3=OUTSIDE)
    shuts_down(cpu, "nested CR3 0x7770000")
    if roots == "legacy":
        cpu.nested_vmexit()
        assert cpu.nested_vmrun(1, 0x123000, 0, 0, ncr3=0x1000)
        shuts_down(cpu, "PDPTE 2, 0x9000001, of nested CR3 0x1000")
    cpu = vcpu(roots)
    cpu.set_sregs(1, 0, 0, 0)
    cpu.enter()
    assert cpu.nested_vmrun(PAGING, OUTSIDE, 0, 0, ncr3=None)
    shuts_down(cpu, "CR3 0x7770000")


def test_an_ept_pointer() -> None:
    cpu = vcpu("special", vendor="vmx", tdp=True)
    cpu.set_sregs(PAGING, 0x2000, PAE, LMA)
    assert cpu.nested_vmentry(1, 0x123000, 0, 0, eptp=OUTSIDE | 0x1E)
    shuts_down(cpu, "EPT pointer 0x777001e")


@pytest.mark.parametrize("roots", ["special", "legacy"])
def test_an_address_that_no_root_reaches_is_not_the_hosts_fault(roots: str) -> None:
    cpu = vcpu(roots)
    cpu.set_sregs(1, 0, 0, 0)
    cpu.enter()
    with pytest.raises(EngineError, match="0x200000000 is beyond what a root of 3 levels reaches"):
        cpu.page_fault(1 << 33, 0)
    cpu.vm.write_protect_hva(cpu.vm.memslots()[0].hva + 0x3000, 0x1000, False)
    with pytest.raises(HostFault, match="the host cannot give the page behind 0x3000"):
        cpu.page_fault(0x3000, 2)
