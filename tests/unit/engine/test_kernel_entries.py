# SPDX-License-Identifier: GPL-2.0-only
"""What entries hold on each kernel: nothing, an EPT entry's own bits, a mark of MMIO."""

from __future__ import annotations

import pytest
from designs import every_design
from guest_tables import pae_guest, touch
from poke import poke_host

from shadowmmu import Outcome, Vm
from shadowmmu.check.audit import audit
from shadowmmu.engine.face.kernels import KERNELS

every_kernel = pytest.mark.parametrize("kernel", KERNELS)
BIT_63, RWX, MISCONFIGURED = 1 << 63, 7, 6
HOST_AND_MMU_WRITABLE = {"6.1": 1 << 57 | 1 << 58, "6.12": 1 << 57 | 1 << 58, "7.3": 1 << 53 | 1 << 55}
AD_OFF = {"6.1": 1 << 52, "6.12": 1 << 52, "7.3": 1 << 60}
MEMORY, NOWHERE, EPTP_WITHOUT_AD = 0x5000, 0x8000_0000, 0x1000 | 0x1E


def entries(vm: Vm, level: int) -> set[int]:
    """All that stand in tables of that level."""
    pages = [page for page in vm.shadow_pages() if page.role & 0xF == level]
    return {vm.read_host_u64(page.hpa + 8 * index) for page in pages for index in range(512)}


def entry_of(vm: Vm, gpa: int) -> int:
    """The entry of a page in the one level-1 table that there is."""
    (page,) = [page for page in vm.shadow_pages() if page.role & 0xF == 1]
    return vm.read_host_u64(page.hpa + 8 * (gpa >> 12 & 511))


@every_design
@every_kernel
def test_a_table_begins_and_ends_with_nothing_in_it(kernel: str, roots: str) -> None:
    vm = pae_guest(roots, kernel=kernel)
    nothing = 0 if kernel == "6.1" else BIT_63
    assert touch(vm, 0x1000) == Outcome.FIXED and nothing in entries(vm, 1) & entries(vm, 2)
    assert (BIT_63 - nothing) not in entries(vm, 1) | entries(vm, 2)
    vm.vcpus[0].write_emulated(0x4008, bytes(8))
    assert nothing in entries(vm, 1) and (BIT_63 - nothing) not in entries(vm, 1)
    assert all(vm.nothing_in(page.hpa) == nothing for page in vm.shadow_pages())
    assert audit(vm) == []


@every_design
@every_kernel
def test_what_a_pae_root_holds_where_there_is_nothing(kernel: str, roots: str) -> None:
    """A special one holds what the common code writes into all tables, a bare one 0 on every kernel."""
    nothing = BIT_63 if kernel != "6.1" and roots != "legacy" else 0
    vm = pae_guest(roots, kernel=kernel)
    assert touch(vm, 0x1000) == Outcome.FIXED
    root = vm.vcpus[0].root
    assert root is not None and vm.nothing_in(root) == nothing
    vm.unprotect_page(2)
    assert {vm.read_host_u64(root + 8 * index) for index in (2, 3)} == {nothing}
    assert (vm.read_host_u64(root) == nothing) == (roots != "legacy")


@every_kernel
def test_an_audit_finds_an_entry_that_is_nothing_on_another_kernel(kernel: str) -> None:
    vm = pae_guest(kernel=kernel)
    assert touch(vm, 0x1000) == Outcome.FIXED
    page = next(page for page in vm.shadow_pages() if page.role & 0xF == 1)
    poke_host(vm, page.hpa + 8 * 300, BIT_63 - vm.nothing_in(page.hpa))
    assert any(found.invariant == "I16" for found in audit(vm))


@every_kernel
def test_ept_entries_have_the_bits_of_their_kernel(kernel: str) -> None:
    vm = Vm(memory_mib=8, tdp=True, vendor="vmx", kernel=kernel)
    vcpu = vm.vcpus[0]
    vcpu.enter()
    assert vcpu.page_fault(MEMORY, 2) is Outcome.FIXED
    leaf = entry_of(vm, MEMORY)
    suppresses_ve = BIT_63 if kernel != "6.1" else 0
    assert leaf & BIT_63 == suppresses_ve and leaf & HOST_AND_MMU_WRITABLE[kernel] == HOST_AND_MMU_WRITABLE[kernel]
    assert not leaf & 0x7FF0_0000_0000_0000 & ~HOST_AND_MMU_WRITABLE[kernel]
    assert vcpu.page_fault(NOWHERE, 2) is Outcome.EMULATE
    assert MISCONFIGURED in {entry & (RWX | BIT_63) for entry in entries(vm, 1)}, "a mark is told from what is not present by that, too"
    assert audit(vm) == []


@every_kernel
def test_an_l2_without_ad_bits_says_so_in_its_entries(kernel: str) -> None:
    vm = Vm(memory_mib=8, tdp=True, vendor="vmx", kernel=kernel)
    for level, table in ((4, 0x1000), (3, 0x2000), (2, 0x3000)):
        vm.write_guest(table, (table + 0x1000 | RWX).to_bytes(8, "little"))
        assert level > 1
    vm.write_guest(0x4000 + 8 * 5, (MEMORY | RWX).to_bytes(8, "little"))
    vcpu = vm.vcpus[0]
    assert vcpu.nested_vmentry(1, 0x2000, 0, 0, EPTP_WITHOUT_AD)
    vcpu.enter()
    assert vcpu.page_fault(MEMORY, 2) is Outcome.FIXED
    leaf = entry_of(vm, MEMORY)
    assert leaf & (3 << 52 | 3 << 60) & ~HOST_AND_MMU_WRITABLE[kernel] == AD_OFF[kernel]
    assert audit(vm) == []


@every_kernel
def test_wp_is_nothing_to_an_ept_since_7_3(kernel: str) -> None:
    """L1's EPT gives no W; L2 runs with CR0.WP clear, which is no business of the EPT's."""
    vm = Vm(memory_mib=8, tdp=True, vendor="vmx", kernel=kernel)
    for table in (0x1000, 0x2000, 0x3000):
        vm.write_guest(table, (table + 0x1000 | RWX).to_bytes(8, "little"))
    vm.write_guest(0x4000 + 8 * 5, (MEMORY | 5).to_bytes(8, "little"))
    vcpu = vm.vcpus[0]
    assert vcpu.nested_vmentry(1, 0x2000, 0, 0, EPTP_WITHOUT_AD)
    vcpu.enter()
    assert vcpu.page_fault(MEMORY, 2) is Outcome.INJECT
