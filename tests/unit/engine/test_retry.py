# SPDX-License-Identifier: GPL-2.0-only
"""Which instructions a guest does again, in place of their emulation: by 6.1's rule and by that of later kernels."""

import pytest
from designs import every_design
from guest_tables import PAE_CR4, PG_WP, put

from shadowmmu import Outcome, Vm

TABLES, DATA, LEVEL_1, ROM = 0x1000, 0x5000, 0x3000, 0x4000_0000
WRITE, PRESENT_WRITE = 2, 3
RIP, OTHER = 0x8000, 0x8004
every_kernel = pytest.mark.parametrize("kernel", ["6.1", "6.12", "7.3"])


def guest(roots: str, kernel: str) -> Vm:
    """A PAE guest whose directory at 2000h is mapped at page 2, and its level-1 table at page 3; behind page 8 is a read-only slot."""
    vm = Vm(memory_mib=8, roots=roots, kernel=kernel)
    vm.set_memslot(1, ROM, 0x1000, hva=0x40_0000, readonly=True)
    put(vm, TABLES, 0x2001)
    put(vm, 0x2000, LEVEL_1 | 7)
    for number in range(8):
        put(vm, LEVEL_1 + 8 * number, number << 12 | 7)
    put(vm, LEVEL_1 + 8 * 8, ROM | 7)
    assert vm.vcpus[0].set_sregs(PG_WP, TABLES, PAE_CR4, 0)
    vm.vcpus[0].enter()
    return vm


def to_the_directory(vm: Vm, rip: int = RIP) -> None:
    """A store to the shadowed directory leads to the emulator."""
    vcpu = vm.vcpus[0]
    assert vcpu.page_fault(DATA, WRITE) in (Outcome.FIXED, Outcome.SPURIOUS)
    vcpu.page_fault(0x2000, 0)
    assert vcpu.page_fault(0x2010, PRESENT_WRITE) is Outcome.EMULATE
    vcpu.begin_emulation(rip, 0x2010, False)


def goes(roots: str, kernel: str) -> bool:
    """The directory is a root itself on legacy roots: zapped it stays while it is in use, which is no reason since 6.12 (`pae_seldom`)."""
    return kernel == "6.1" or roots != "legacy"


def is_shadowed(vm: Vm) -> bool:
    return any(page.gfn == 2 and not page.obsolete for page in vm.shadow_pages())


@every_design
@every_kernel
def test_what_seldom_writes_tables_is_done_again_once(kernel: str, roots: str) -> None:
    vm = guest(roots, kernel)
    vcpu = vm.vcpus[0]
    to_the_directory(vm)
    assert vcpu.retry_instruction(False) == goes(roots, kernel) and not is_shadowed(vm)
    vcpu.enter()
    to_the_directory(vm)
    assert not vcpu.retry_instruction(False) and is_shadowed(vm) == goes(roots, kernel), "it would be without end"
    vcpu.enter()
    to_the_directory(vm, OTHER)
    assert vcpu.retry_instruction(False) == goes(roots, kernel) and not is_shadowed(vm)


@every_design
@every_kernel
def test_what_writes_tables_is_emulated(kernel: str, roots: str) -> None:
    vm = guest(roots, kernel)
    to_the_directory(vm)
    assert not vm.vcpus[0].retry_instruction(True) and is_shadowed(vm)


@every_design
@every_kernel
def test_what_cannot_be_emulated_is_done_again(kernel: str, roots: str) -> None:
    """But a store to a table that it needs itself is not: 6.1 sees that behind, and the table is shadowed no longer."""
    vm = guest(roots, kernel)
    vcpu = vm.vcpus[0]
    to_the_directory(vm)
    assert vcpu.retry_failed() != vcpu.writes_own_table
    assert is_shadowed(vm) == (kernel != "6.1" and vcpu.writes_own_table)


@every_design
@every_kernel
def test_memory_that_is_not_there_is_no_reason(kernel: str, roots: str) -> None:
    vm = guest(roots, kernel)
    vcpu = vm.vcpus[0]
    put(vm, LEVEL_1 + 8 * 7, 0x5000_0007)
    assert vcpu.page_fault(0x7000, WRITE) is Outcome.EMULATE
    vcpu.begin_emulation(RIP, 0x7000, False)
    assert not vcpu.retry_instruction(False) and not vcpu.retry_failed()


@every_design
@every_kernel
def test_a_read_only_slot_is_a_reason_for_6_1_alone(kernel: str, roots: str) -> None:
    """Once, and not if the instruction cannot be emulated."""
    vm = guest(roots, kernel)
    vcpu = vm.vcpus[0]
    assert vcpu.page_fault(0x8000, WRITE) is Outcome.EMULATE
    vcpu.begin_emulation(RIP, 0x8000, False)
    assert vcpu.retry_instruction(False) == (kernel == "6.1")
    vcpu.begin_emulation(RIP, 0x8000, False)
    assert not vcpu.retry_instruction(False) and not vcpu.retry_failed()


@every_design
@every_kernel
def test_a_fault_in_a_delivery_stops_shadowing_before_or_behind(kernel: str, roots: str) -> None:
    """6.1 before the fault is served, whatever it is; later kernels behind it, if a table was in the way."""
    vm = guest(roots, kernel)
    vcpu = vm.vcpus[0]
    late = kernel != "6.1"
    to_the_directory(vm)
    assert not vcpu.unprotect_in_delivery(0x2010, False, False) and is_shadowed(vm) == late
    assert vcpu.unprotect_in_delivery(0x2010, False, True) == (late and goes(roots, kernel)) and not is_shadowed(vm)
    vcpu.page_fault(DATA, WRITE)
    assert not vcpu.unprotect_in_delivery(DATA, False, True)


@every_design
def test_direct_tables_are_left_alone_by_a_delivery(roots: str) -> None:
    vm = Vm(memory_mib=1, tdp=True, roots=roots, kernel="6.1")
    vm.vcpus[0].enter()
    vm.start_trace(64)
    assert not vm.vcpus[0].unprotect_in_delivery(0x2000, False, False)
    assert vm.records() == []
