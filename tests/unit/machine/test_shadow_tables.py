# SPDX-License-Identifier: GPL-2.0-only
"""The CPU's own walk of shadow tables, compiled, is the manuals' walk of them."""

from __future__ import annotations

import random

import pytest
from designs import every_design

from shadowmmu import GuestTables, Vm
from shadowmmu.hardware.walk import FETCH, USER, WRITE, Features, TrailEntry, paging, walk
from shadowmmu.machine.memory.shadow_tables import ShadowTables
from shadowmmu.machine.real_controls import on_shadow_tables
from shadowmmu.x86.control import Cr4
from shadowmmu.x86.pte import Pte

PAGES = 40
KINDS = (0, WRITE, USER, USER | WRITE, FETCH, USER | FETCH)


def flags(choose: random.Random) -> int:
    return int(Pte.PRESENT) | choose.choice((0, int(Pte.WRITABLE))) | choose.choice((0, int(Pte.USER)))


@every_design
@pytest.mark.parametrize("smap", [0, int(Cr4.SMAP | Cr4.SMEP)])
@pytest.mark.parametrize("format", ["2-level", "pae", "4-level", "5-level"])
def test_it_is_any_walk(format: str, smap: int, roots: str) -> None:
    choose = random.Random(f"{format} {smap}")
    vm = Vm(memory_mib=16, roots=roots, host_levels=5)
    vcpu = vm.vcpus[0]
    tables, shadow = GuestTables(vm, format, 0x10000), ShadowTables(vcpu)
    assert ~shadow.walk(0x5000, WRITE) == WRITE, "there is no root yet"
    addresses = [choose.randrange(1 << 30) & -0x1000 for _ in range(PAGES)]
    for number, address in enumerate(addresses):
        tables.map(address, 0x100000 + 0x1000 * number, flags(choose))
    cr0, cr3, cr4, efer = tables.registers
    assert vcpu.set_sregs(cr0, cr3, cr4 | smap, efer)
    vcpu.enter()
    for address in addresses:
        vcpu.page_fault(address, choose.choice(KINDS))
    mode, found = paging(*on_shadow_tables(vcpu), Features(maxphyaddr=vm.host_maxphyaddr)), set()
    for address in (*addresses, 0x7F000000):
        for access in KINDS:
            vcpu.ac = choose.random() < 0.5
            root = vcpu.root
            assert root is not None
            expected = walk(mode, lambda hpa, _: vm.read_host_u64(hpa), root, address, access, vcpu.ac)
            got = shadow.walk(address, access)
            assert got == (~expected if isinstance(expected, int) else expected.address(address))
            found.add(got >= 0)
    assert found == {False, True}


def test_a_and_d_are_set() -> None:
    vm = Vm(memory_mib=16)
    vcpu = vm.vcpus[0]
    tables = GuestTables(vm, "pae", 0x10000)
    tables.map(0x5000, 0x123000)
    assert vcpu.set_sregs(*tables.registers)
    vcpu.enter()
    vcpu.page_fault(0x5000, WRITE)
    trail: list[TrailEntry] = []
    root = vcpu.root
    assert root is not None and ShadowTables(vcpu).walk(0x5123, WRITE) & 0xFFF == 0x123
    mode = paging(*on_shadow_tables(vcpu), Features(maxphyaddr=vm.host_maxphyaddr))
    walk(mode, lambda hpa, _: vm.read_host_u64(hpa), root, 0x5123, WRITE, trail=trail)
    assert len(trail) == 2 and all(one.entry & Pte.ACCESSED for one in trail) and trail[-1].entry & Pte.DIRTY
