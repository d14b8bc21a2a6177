# SPDX-License-Identifier: GPL-2.0-only
"""Faults that Linux had, each as the guest that shows it. With the rule taken out of the engine the test fails."""

from __future__ import annotations

import struct

import pytest
from guest_tables import ADDR, NXE, PAE_CR4, PG_WP, put

from shadowmmu import ROOT_DESIGNS, Outcome, Vm
from shadowmmu.check.audit import audit
from shadowmmu.x86.pferr import Pferr

PAGE, MIB2 = 0x1000, 0x200000
NPF = int(Pferr.USER | Pferr.WRITE | Pferr.GUEST_FINAL)


def mapped(vm: Vm, gpa: int, level: int = 1) -> list[int]:
    """Where the shadow entries of guest address `gpa` lead."""
    return [vm.read_host_u64(sptep) & ADDR for sptep in vm.rmap(gpa, level)]


@pytest.mark.parametrize("roots", ROOT_DESIGNS)
@pytest.mark.parametrize("host_levels", [4, 5])
@pytest.mark.parametrize("base", [0x1000, 0x1FE0])
@pytest.mark.parametrize("low", [0, 1, 0x10, 0x18, 0x1F])
def test_cve_2024_50115_bits_4_to_0_of_ncr3_are_no_address(low: int, base: int, host_levels: int, roots: str) -> None:
    """A PAE L1's four PDPTEs lie at a multiple of 32 bytes, at the end of a page too; behind them lies what must not be read."""
    vm = Vm(memory_mib=8, tdp=True, host_levels=host_levels, roots=roots)
    for i in range(4):
        put(vm, base + 8 * i, 0x10000 + i * PAGE | 1)
        put(vm, 0x10000 + i * PAGE, 0x20000 + i * PAGE | 7)
        put(vm, 0x20000 + i * PAGE, 0x400000 + i * PAGE | 7)
        put(vm, base + 0x20 + 8 * i, 0x10000 + (3 - i) * PAGE | 1)
    vcpu = vm.vcpus[0]
    assert vcpu.set_sregs(PG_WP, 0x8000, PAE_CR4, NXE)
    assert vcpu.nested_vmrun(1, 0, 0, 0, ncr3=base | low)
    vcpu.enter()
    for i in range(4):
        walk = vcpu.nested_walk(i << 30)
        assert walk is not None and walk.steps[0].gpa == base + 8 * i and walk.gpa == 0x400000 + i * PAGE
        assert vcpu.page_fault(i << 30, NPF) is Outcome.FIXED
        assert mapped(vm, 0x400000 + i * PAGE) == [vm.host_page(0x400000 + i * PAGE)]
    assert vm.bugs() == [] and audit(vm) == []


@pytest.fixture(params=ROOT_DESIGNS)
def aliased(request: pytest.FixtureRequest) -> Vm:
    """A PAE guest whose large page at 2 MiB, of 4K host pages, begins with what looks like a table; its directory lies at
    256 MiB once more, where nothing protects it."""
    vm = Vm(memory_mib=0, user_mib=8, roots=request.param, vcpus=2)
    vm.set_memslot(0, 0, 0x400000, 0)
    vm.set_memslot(1, 0x10000000, PAGE, 0x2000)
    put(vm, 0x1000, 0x2001)
    put(vm, 0x1008, 0x5001)
    put(vm, 0x2008, MIB2 | 0xE7)
    put(vm, 0x5000, 0x6007)
    put(vm, 0x6000, 0x10000007)
    for page in range(4):
        put(vm, MIB2 + 8 * page, 0x300000 + page * PAGE | 0x67)
    for vcpu in vm.vcpus:
        assert vcpu.set_sregs(PG_WP, 0x1000, PAE_CR4, NXE)
        vcpu.enter()
    assert vm.vcpus[0].page_fault(MIB2, 2) is Outcome.FIXED
    return vm


STORES = {
    "by another CPU between walk and lock": lambda vm: vm.arm_interleave(1, 0x2008, MIB2 | 0x67, 8),
    "behind the MMU": lambda vm: put(vm, 0x2008, MIB2 | 0x67),
    "by the alias": lambda vm: vm.write_guest(0x10000008, struct.pack("<Q", MIB2 | 0x67)),
}


@pytest.mark.parametrize("how", STORES)
def test_cve_2026_53359_a_table_replaces_the_large_page_that_begins_where_it_lies(how: str, aliased: Vm) -> None:
    """The direct page of the large one has the gfn that the table's shadow must have: only its role tells them apart."""
    vcpu = aliased.vcpus[0]
    assert vcpu.page_fault(0x40000000, 2) is Outcome.FIXED
    STORES[how](aliased)
    for page in range(4):
        vcpu.enter()
        for _ in range(4):
            if vcpu.page_fault(MIB2 + page * PAGE, 2) is Outcome.SPURIOUS:
                break
    shadows = [page for page in aliased.shadow_pages() if page.gfn == MIB2 >> 12 and page.parents]
    assert [page.direct for page in shadows] == [False]
    for page in range(4):
        entry = aliased.read_host_u64(shadows[0].hpa + 8 * page)
        assert entry & ADDR == aliased.host_page(0x300000 + page * PAGE), f"{MIB2 + page * PAGE:#x} leads into the large page"
    aliased.zap_all_fast()
    vcpu.enter()
    assert aliased.bugs() == [] and audit(aliased) == []
