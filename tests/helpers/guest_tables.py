# SPDX-License-Identifier: GPL-2.0-only
"""Small guests for tests of the engine: tables that map a few addresses, and a VM that runs on them."""

from __future__ import annotations

import struct

from shadowmmu import Outcome, ShadowPageView, Vm

PG_WP = 0x80010001
PAE_CR4, NXE, LONG = 0x20, 0x800, 0xD00
ADDR = 0x000FFFFFFFFFF000
READ, WRITE, USER = 0, 2, 4


def put(vm: Vm, gpa: int, value: int) -> None:
    vm.write_guest(gpa, struct.pack("<Q", value))


def pae_guest(roots: str = "special", *, vcpus: int = 1, memory_mib: int = 8, **options: int | str) -> Vm:
    """CR3 0x1000; PDPTEs 0 and 1 lead to directories 0x2000 and 0x3000, both to the table 0x4000, which maps 16 pages."""
    vm = Vm(memory_mib=memory_mib, roots=roots, vcpus=vcpus, **options)
    put(vm, 0x1000, 0x2001)
    put(vm, 0x1008, 0x3001)
    put(vm, 0x2000, 0x4007)
    put(vm, 0x3000, 0x4007)
    for page in range(16):
        put(vm, 0x4000 + 8 * page, 0x100000 + 0x1000 * page | 7)
    put(vm, 0x4000 + 8 * 32, 0x4007)  # the table maps itself at 0x20000
    put(vm, 0x4000 + 8 * 33, 0x2007)  # and the directory at 0x21000
    for vcpu in vm.vcpus:
        assert vcpu.set_sregs(PG_WP, 0x1000, PAE_CR4, NXE)
        vcpu.enter()
    return vm


def two_level_guest(roots: str = "special") -> Vm:
    """CR3 0x1000; entries 0, 0x100, 0x200 and 0x300 of the directory, one a gigabyte, lead to the table 0x2000."""
    vm = Vm(memory_mib=8, roots=roots)
    for entry in range(0, 0x400, 0x100):
        vm.write_guest(0x1000 + 4 * entry, struct.pack("<I", 0x2007))
    for page in range(16):
        vm.write_guest(0x2000 + 4 * page, struct.pack("<I", 0x100000 + 0x1000 * page | 7))
    assert vm.vcpus[0].set_sregs(PG_WP, 0x1000, 0, 0)
    vm.vcpus[0].enter()
    return vm


def nonpaging_guest(roots: str = "special") -> Vm:
    vm = Vm(memory_mib=8, roots=roots)
    assert vm.vcpus[0].set_sregs(1, 0, 0, 0)
    vm.vcpus[0].enter()
    return vm


GUESTS = {"pae": pae_guest, "2-level": two_level_guest, "nonpaging": nonpaging_guest}


def touch(vm: Vm, gva: int, access: int = WRITE, vcpu: int = 0) -> Outcome:
    """Enter the guest and take one page fault."""
    vm.vcpus[vcpu].enter()
    return vm.vcpus[vcpu].page_fault(gva, access)


def special_pages(vm: Vm) -> list[ShadowPageView]:
    return [page for page in vm.shadow_pages() if page.special]


def page_of(vm: Vm, gfn: int, level: int) -> ShadowPageView:
    """The one shadow page of this gfn and level that is not obsolete."""
    (page,) = [p for p in vm.shadow_pages() if p.gfn == gfn and p.level == level and not p.special and not p.obsolete]
    return page


def entries(vm: Vm, page: ShadowPageView) -> tuple[int, ...]:
    """Its 512 entries; 0 where nothing is, whatever the kernel writes there."""
    nothing = vm.nothing_in(page.hpa)
    return tuple(0 if entry == nothing else entry for entry in struct.unpack("<512Q", vm.read_host(page.hpa, 4096)))
