# SPDX-License-Identifier: GPL-2.0-only
"""Rules of kernels that no capture can show: each answer, and what it comes to."""

from __future__ import annotations

import pytest
from designs import every_design
from guest_tables import LONG, PAE_CR4, PG_WP, READ, WRITE, pae_guest, put, touch

from shadowmmu import GuestTables, Outcome, Vm
from shadowmmu.check.audit import audit
from shadowmmu.engine.face.kernels import KERNELS
from shadowmmu.x86.pferr import Pferr

every_kernel = pytest.mark.parametrize("kernel", KERNELS)
A, D, RWX = 0x20, 0x40, 7
EPT_A, EPT_D, EPTP_WITHOUT_AD = 1 << 8, 1 << 9, 0x1000 | 0x1E
LMA, LME, NXE = 1 << 10, 1 << 8, 1 << 11
NESTED_WRITE = int(Pferr.USER | Pferr.WRITE | Pferr.GUEST_FINAL)


@every_kernel
def test_flushes_write_alone(kernel: str) -> None:
    """A sync takes X from an entry, and on 6.1 its A: that alone is flushed for. What loses W is, on every kernel."""
    vm = pae_guest(kernel=kernel)
    vcpu = vm.vcpus[0]
    assert touch(vm, 0x1000) == touch(vm, 0x20000) == Outcome.FIXED  # the table maps itself: it goes unsync
    flushes = []
    for entry in (0x101007 | 1 << 63, 0x101005 | 1 << 63):
        put(vm, 0x4008, entry | A | D)
        before = vm.counters()["remote_tlb_flush_requests"]
        vcpu.invlpg(0x1000)
        flushes.append(vm.counters()["remote_tlb_flush_requests"] - before)
    assert flushes == [int(kernel != "7.3"), 1] and audit(vm) == []


def l2_of_an_ept_without_ad(kernel: str) -> Vm:
    vm = Vm(memory_mib=8, tdp=True, vendor="vmx", kernel=kernel)
    for table in (0x1000, 0x2000, 0x3000):
        put(vm, table, table + 0x1000 | RWX)
    put(vm, 0x4000 + 8 * 5, 0x5000 | RWX)
    assert vm.vcpus[0].nested_vmentry(1, 0x2000, 0, 0, EPTP_WITHOUT_AD)
    vm.vcpus[0].enter()
    return vm


@every_kernel
def test_ad_bits_always(kernel: str) -> None:
    vm = l2_of_an_ept_without_ad(kernel)
    assert vm.vcpus[0].page_fault(0x5000, WRITE) is Outcome.FIXED
    (page,) = [page for page in vm.shadow_pages() if page.level == 1]
    assert vm.read_host_u64(page.hpa + 8 * 5) & (EPT_A | EPT_D) == (EPT_A | EPT_D if kernel == "7.3" else 0)
    assert audit(vm) == []


@every_kernel
def test_vmrun_drops_lma(kernel: str) -> None:
    """L2 is given LMA without LME: on 6.1 it is in long mode, later it is a PAE guest, whose tables are other ones."""
    vm = Vm(memory_mib=8, tdp=True, kernel=kernel)
    vcpu = vm.vcpus[0]
    assert vcpu.set_sregs(PG_WP, 0x1000, PAE_CR4, LONG)
    GuestTables(vm, "4-level", 0x10000).map(0x5000, 0x5000)
    assert vcpu.nested_vmrun(PG_WP, 0x2000, PAE_CR4, LMA | NXE, 0x10000)
    assert vcpu.efer == ((LMA | NXE) if kernel == "6.1" else NXE)


@every_kernel
def test_vmrun_reloads_pdptes(kernel: str) -> None:
    """Between VMRUN and the first step of L2: its PDPTEs are those of before, or those in memory."""
    vm = Vm(memory_mib=8, tdp=True, kernel=kernel)
    vcpu = vm.vcpus[0]
    put(vm, 0x1000, 0x2001)
    assert vcpu.set_sregs(PG_WP, 0x1000, PAE_CR4, NXE)
    GuestTables(vm, "pae", 0x30000).map(0x20000, 0x20000)
    GuestTables(vm, "pae", 0x30000).map(0x21000, 0x21000)
    GuestTables(vm, "pae", 0x30000).map(0x22000, 0x22000)
    put(vm, 0x20000, 0x21001)
    put(vm, 0x21000, 0x22007)
    put(vm, 0x22000 + 8 * 5, 0x5007)
    GuestTables(vm, "pae", 0x30000).map(0x5000, 0x5000)
    vcpu.enter()
    vcpu.gva_to_gpa(0x5000, READ)  # the emulator reads L1's PDPTEs
    assert vcpu.nested_vmrun(PG_WP, 0x20000, PAE_CR4, NXE, 0x30000)
    assert vcpu.gva_to_gpa(0x5000, READ) == (0x5000 if kernel == "7.3" else None)


@every_design
@pytest.mark.parametrize("alone", [False, True])
def test_zaps_slot_alone(alone: bool, roots: str) -> None:
    """KVM_X86_QUIRK_SLOT_ZAP_ALL on, and off: a slot that goes takes all with it, or its mappings and the shadow of the table in it."""
    vm = pae_guest(roots, kernel="7.3+zaps_slot_alone" if alone else "7.3")
    vcpu = vm.vcpus[0]
    vm.set_memslot(5, 0x4000_0000, 0x2000, hva=0x40_0000)
    put(vm, 0x1008, 0x4000_0001)  # PDPTE 1 leads to a directory there
    put(vm, 0x4000_0000, 0x4007)
    put(vm, 0x4008, 0x4000_1007)
    assert vcpu.set_cr3(0x1000)
    assert touch(vm, 0x2000) is touch(vm, 0x1000) is Outcome.FIXED
    assert touch(vm, 0x4000_2000) is Outcome.SPURIOUS, "the table that both directories lead to"
    assert vm.rmap(0x4000_1000)
    before, generation = {(page.gfn, page.level) for page in vm.shadow_pages() if not page.special}, vm.generation
    assert (0x40000, 2) in before
    vm.set_memslot(5, 0x4000_0000, 0)
    left = {(page.gfn, page.level) for page in vm.shadow_pages() if not page.special and not page.obsolete}
    assert left == (before - {(0x40000, 2)} if alone else set())
    assert (vm.generation == generation) == alone and audit(vm) == []
    assert touch(vm, 0x2000) is (Outcome.SPURIOUS if alone else Outcome.FIXED) and audit(vm) == []


@every_design
@every_kernel
@pytest.mark.parametrize("host_levels", [4, 5])
@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_write_to_a_table_on_its_own_way_is_noted(level: int, host_levels: int, kernel: str, roots: str) -> None:
    """Of a 4-level L1's nested tables the top one is the root's own on a 4-level host, and later kernels do not look there. On a
    5-level host it hangs below the root, as every other table."""
    vm = Vm(memory_mib=8, tdp=True, roots=roots, kernel=kernel, host_levels=host_levels)
    vcpu = vm.vcpus[0]
    assert vcpu.set_sregs(PG_WP, 0x1000, PAE_CR4, LONG)
    tables = GuestTables(vm, "4-level", 0x10000)
    tables.map(0x5000, 0x5000)
    at = {table: 0x10000 + 0x1000 * (4 - table) for table in (1, 2, 3, 4)}
    tables.map(0x6000, at[level])
    assert vcpu.nested_vmrun(PG_WP, 0x2000, PAE_CR4, NXE, 0x10000)
    vcpu.enter()
    assert vcpu.page_fault(0x5000, NESTED_WRITE) is Outcome.FIXED and not vcpu.writes_own_table
    vcpu.page_fault(0x6000, NESTED_WRITE)
    assert vcpu.writes_own_table == (kernel == "6.1" or level < host_levels)
