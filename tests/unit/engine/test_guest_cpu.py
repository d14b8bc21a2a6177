# SPDX-License-Identifier: GPL-2.0-only
"""What the guest's CPUID says, and what the host's KVM is told, changes what is reserved, what may be set, what is marked."""

from __future__ import annotations

import pytest
from guest_tables import READ, pae_guest, put

from shadowmmu import Outcome, Vm
from shadowmmu.check.audit import audit
from shadowmmu.x86.control import Cr0, Cr4, Efer

ON = int(Cr0.PE | Cr0.PG | Cr0.WP)
LONG = ON, 0x1000, int(Cr4.PAE), int(Efer.LME | Efer.LMA | Efer.NXE)
RESERVED = 9


def long_guest(top: int = 0, large: int = 0, **options: object) -> Vm:
    """4-level tables, with more bits in the uppermost entry: address 0x5000 by 4 KiB, 0x40000000 by an entry of level 3."""
    vm = Vm(memory_mib=8, **options)
    put(vm, 0x1000, 0x2007 | top)
    put(vm, 0x2000, 0x3007)
    put(vm, 0x2008, large)
    put(vm, 0x3000, 0x4007)
    put(vm, 0x4000 + 8 * 5, 0x100007)
    (vcpu,) = vm.vcpus
    assert vcpu.set_sregs(*LONG)
    vcpu.enter()
    return vm


def fault(vm: Vm, gva: int) -> int | None:
    """The error code that the guest is given; None: it is not."""
    outcome = vm.vcpus[0].page_fault(gva, READ)
    exception = vm.vcpus[0].exception
    return exception.error_code if outcome is Outcome.INJECT and exception else None


@pytest.mark.parametrize(("host", "guest", "reserved"), [
    ("svm", "host", True), ("svm", "vmx", False), ("vmx", "host", False), ("vmx", "svm", True),
])  # fmt: skip
def test_bit_8_of_an_upper_entry_is_reserved_on_a_guest_of_amd(host: str, guest: str, reserved: bool) -> None:
    vm = long_guest(top=0x100, vendor=host, guest_vendor=guest)
    assert vm.config.amd is reserved
    assert fault(vm, 0x5000) == (RESERVED if reserved else None)


def test_1_gib_pages_that_cpuid_does_not_offer() -> None:
    assert fault(long_guest(large=0x87), 0x40005000) is None
    assert fault(long_guest(large=0x87, pages_1g=False), 0x40005000) == RESERVED
    assert fault(long_guest(large=0x87, pages_1g=False), 0x5000) is None
    assert not long_guest(pages_1g=False).config.has_1g and Vm(memory_mib=8, tdp=True, pages_1g=False).config.has_1g


def test_efer_bits_that_cpuid_does_not_offer() -> None:
    vm = Vm(memory_mib=8, efer_reserved=int(Efer.NXE))
    assert not vm.vcpus[0].set_efer(int(Efer.NXE)) and vm.vcpus[0].set_efer(int(Efer.SCE))
    assert Vm(memory_mib=8).vcpus[0].set_efer(int(Efer.NXE))


def test_without_mmio_caching_no_mark_is_made() -> None:
    for caching, kernel in ((True, "6.1"), (True, "7.3"), (False, "6.1"), (False, "7.3")):
        vm = pae_guest(mmio_caching=caching, kernel=kernel)
        put(vm, 0x4000 + 8 * 9, 0x1000007)
        for _ in range(2):
            assert vm.vcpus[0].page_fault(0x9000, READ) is Outcome.EMULATE
        assert bool(vm.counters()["pf_mmio_spte_created"]) is caching
        assert vm.vcpus[0].mmio_gpa(0x9000, READ) == (0x1000000 if kernel == "6.1" else None), "since 7.3 a load walks again"
        assert audit(vm, strict=True) == []
