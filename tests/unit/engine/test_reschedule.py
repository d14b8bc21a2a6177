# SPDX-License-Identifier: GPL-2.0-only
"""Another task wants the CPU while the kernel syncs what hangs below a table: the fault is tried again, the rest synced at entry."""

from __future__ import annotations

import pytest
from guest_tables import READ, WRITE, entries, pae_guest, page_of, put, touch

from shadowmmu import GuestMemoryError, Outcome, Vm
from shadowmmu.check.audit import audit

OTHER_ROOT, SECOND = 0x6000, 0x8000
"""Another PDPT, whose first entry leads to the directory at 0x7000, and that to the table at 0x8000 or 0x4000."""


def guest_with_unsync_tables(roots: str) -> Vm:
    """The guest has changed the tables at 0x4000 and 0x8000 while another root was loaded, whose directory leads to both."""
    vm = pae_guest(roots)
    put(vm, OTHER_ROOT, 0x7001)
    put(vm, 0x7000, 0x4007)
    put(vm, 0x7008, SECOND | 7)
    put(vm, SECOND, 0x100007)
    put(vm, 0x4000 + 8 * 34, SECOND | 7)  # reached at 0x22000
    (vcpu,) = vm.vcpus
    assert vcpu.set_cr3(OTHER_ROOT)
    for gva in (0x1000, 0x200000):
        assert touch(vm, gva, READ) in (Outcome.FIXED, Outcome.SPURIOUS)
    assert vcpu.set_cr3(0x1000)
    for gva in (0x20000, 0x22000):
        assert touch(vm, gva, WRITE) is Outcome.FIXED
    assert page_of(vm, 4, 1).unsync and page_of(vm, SECOND >> 12, 1).unsync
    return vm


@pytest.mark.parametrize("roots", ["special", "legacy"])
def test_a_root_is_synced_all_the_same(roots: str) -> None:
    """There the lock may be let go: the rest is synced after a while."""
    vm = guest_with_unsync_tables(roots)
    vm.reschedule(1)
    (vcpu,) = vm.vcpus
    assert vcpu.set_cr3(OTHER_ROOT)
    vcpu.enter()
    assert not audit(vm)


def test_a_fault_is_tried_again() -> None:
    vm = guest_with_unsync_tables("special")
    (vcpu,) = vm.vcpus
    assert vcpu.set_cr3(OTHER_ROOT)
    vcpu.enter()  # a special root begins empty: nothing below it is synced yet
    vm.reschedule(2)
    assert vcpu.page_fault(0x1000, READ) is Outcome.RETRY
    vcpu.enter()
    assert vcpu.page_fault(0x1000, READ) in (Outcome.FIXED, Outcome.SPURIOUS)
    assert not audit(vm) and not vm.bugs()


def test_the_vmm_stores_into_memory_that_it_gave_back() -> None:
    """Behind a read-only memslot too: there only the guest may not."""
    vm = pae_guest()
    vm.set_memslot(1, 0x800000, 0x2000, 0x7FE000, readonly=True)
    vm.unmap_hva(0x7FE000, 0x2000)
    assert vm.read_guest(0x800FFE, 4) == bytes(4)
    with pytest.raises(GuestMemoryError):
        vm.write_guest(0x800FFE, b"1234")
    vm.write_user(0x7FEFFE, b"1234")
    assert vm.read_guest(0x800FFE, 4) == b"1234"
    vm.write_protect_hva(0x7FE000, 0x1000)
    with pytest.raises(GuestMemoryError, match="make it writable first"):
        vm.write_user(0x7FE000, b"1")


def test_a_store_into_the_page_of_zeroes_drops_its_shadows() -> None:
    vm = pae_guest()
    vm.unmap_hva(0x101000, 0x1000)
    assert touch(vm, 0x1000, READ) is Outcome.FIXED
    assert entries(vm, page_of(vm, 4, 1))[1]
    vm.write_user(0x101000, b"x")
    assert not entries(vm, page_of(vm, 4, 1))[1] and not audit(vm)
