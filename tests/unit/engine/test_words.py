# SPDX-License-Identifier: GPL-2.0-only
"""What an error says: the pointer or the address that is at fault, not another one.

Only Linux 6.1 shuts a guest down for a root that leads outside memory.
"""

from __future__ import annotations

import pytest
from guest_tables import NXE, PAE_CR4, PG_WP, put

from shadowmmu import ROOT_DESIGNS, EngineError, HostFault, Outcome, TripleFault, Vm

LONG, LONG_EFER = 0x20, 0xD00
NOWHERE = 0x7F000000


@pytest.mark.parametrize("roots", ROOT_DESIGNS)
@pytest.mark.parametrize("efer", [NXE, LONG_EFER])
def test_a_nested_cr3_that_leads_outside_is_named(efer: int, roots: str) -> None:
    vcpu = Vm(memory_mib=1, kernel="6.1", tdp=True, roots=roots).vcpus[0]
    assert vcpu.set_sregs(PG_WP, 0x1000, PAE_CR4, efer)
    assert vcpu.nested_vmrun(1, 0x2000, 0, 0, ncr3=NOWHERE)
    with pytest.raises(TripleFault, match=r"^vCPU 0: nested CR3 0x7f000000 leads outside guest memory$"):
        vcpu.enter()


@pytest.mark.parametrize("roots", ROOT_DESIGNS)
def test_an_ept_pointer_that_leads_outside_is_named(roots: str) -> None:
    vcpu = Vm(memory_mib=1, kernel="6.1", tdp=True, vendor="vmx", roots=roots).vcpus[0]
    assert vcpu.nested_vmentry(1, 0x2000, 0, 0, NOWHERE | 0x1E)
    with pytest.raises(TripleFault, match=r"^vCPU 0: EPT pointer 0x7f00001e leads outside guest memory$"):
        vcpu.enter()


@pytest.mark.parametrize("nested", [False, True])
def test_a_pdpte_that_leads_outside_is_named_with_its_number(nested: bool) -> None:
    """Legacy roots follow all four at once; special ones leave it to the access that uses one."""
    vm = Vm(memory_mib=1, kernel="6.1", tdp=nested, roots="legacy")
    for i, pdpte in enumerate((0x2001, 0, NOWHERE | 1, 0x3001)):
        put(vm, 0x1000 + 8 * i, pdpte)
    vcpu = vm.vcpus[0]
    assert vcpu.set_sregs(PG_WP, 0x1000, PAE_CR4, NXE)
    if nested:
        assert vcpu.nested_vmrun(1, 0, 0, 0, ncr3=0x1000)
    with pytest.raises(TripleFault, match=f"^vCPU 0: PDPTE 2, 0x7f000001, of {'nested ' if nested else ''}CR3 0x1000 leads outside"):
        vcpu.enter()


@pytest.mark.parametrize("roots", ROOT_DESIGNS)
def test_a_cr3_that_leads_outside_is_named(roots: str) -> None:
    vcpu = Vm(memory_mib=1, kernel="6.1", roots=roots).vcpus[0]
    assert vcpu.set_sregs(PG_WP, NOWHERE, LONG, LONG_EFER)
    with pytest.raises(TripleFault, match=r"^vCPU 0: CR3 0x7f000000 leads outside"):
        vcpu.enter()


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({}, 32),
        ({"tdp": True}, 48),
        ({"tdp": True, "host_levels": 5}, 57),
        ({"tdp": True, "host_levels": 3}, 32),
        ({"tdp": True, "vendor": "vmx"}, 48),
    ],
)
def test_an_address_that_the_root_cannot_reach_is_not_blamed_on_the_host(options: dict[str, object], bits: int) -> None:
    vm = Vm(memory_mib=1, host_maxphyaddr=52, **options)
    vcpu = vm.vcpus[0]
    vcpu.enter()
    assert vcpu.page_fault((1 << bits) - 0x1000, 2) in (Outcome.EMULATE, Outcome.RETRY)
    with pytest.raises(EngineError, match=f"^vCPU 0: {1 << bits:#x} is beyond what a root of . levels reaches") as told:
        vcpu.page_fault(1 << bits, 2)
    assert not isinstance(told.value, HostFault)


def test_a_page_that_the_host_protects_is_blamed_on_the_host() -> None:
    vm = Vm(memory_mib=1)
    vm.vcpus[0].enter()
    vm.write_protect_hva(0x5000, 0x1000)
    with pytest.raises(HostFault, match=r"^vCPU 0: the host cannot give the page behind 0x5000$"):
        vm.vcpus[0].page_fault(0x5000, 2)
