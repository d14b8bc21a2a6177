# SPDX-License-Identifier: GPL-2.0-only
"""Entries that INVLPG should have renewed are seen: after it there are none, before it those of an unsync table."""

import pytest
from guest_tables import PAE_CR4, pae_guest, put, touch

from shadowmmu import Outcome, Vm
from shadowmmu.check.fuzz.invalidated import stale_entry


def unsync_guest(roots: str) -> Vm:
    """The table is mapped in itself, at 0x20000, and has been written through there."""
    vm = pae_guest(roots)
    for gva in (0x1000, 0x40001000, 0x20000):
        assert touch(vm, gva) in (Outcome.FIXED, Outcome.SPURIOUS)
    return vm


@pytest.mark.parametrize("roots", ["special", "legacy"])
@pytest.mark.parametrize("entry", [0x105007, 0x101005, 0])
def test_an_entry_older_than_the_guests(roots: str, entry: int) -> None:
    """Another page, a right less, nothing; INVLPG renews it for each address that it serves."""
    vm = unsync_guest(roots)
    assert vm.vcpus[0].cr4 & PAE_CR4
    assert not any(stale_entry(vm, vm.vcpus[0], gva) for gva in (0x1000, 0x40001000, 0x7FE00000))
    put(vm, 0x4008, entry)
    for gva in (0x1000, 0x40001000):
        assert f"the guest's entry is {entry:#x}" in stale_entry(vm, vm.vcpus[0], gva)
    vm.vcpus[0].invlpg(0x1000)
    assert not any(stale_entry(vm, vm.vcpus[0], gva) for gva in (0x1000, 0x40001000))


def test_an_mmio_mark_maps_nothing() -> None:
    """It has the bit that says present to the hardware, and a reserved one."""
    vm = unsync_guest("special")
    put(vm, 0x4000 + 8 * 9, 0x1000007)
    assert touch(vm, 0x9000) == Outcome.EMULATE
    put(vm, 0x4000 + 8 * 9, 0x109007)
    assert not stale_entry(vm, vm.vcpus[0], 0x9000)
