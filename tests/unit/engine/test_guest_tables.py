# SPDX-License-Identifier: GPL-2.0-only
"""GuestTables: what they map is what the manuals' walk finds, in every format, at every level; and what the engine shadows."""

from __future__ import annotations

import random

import pytest

from shadowmmu import GuestTables, Outcome, Vm
from shadowmmu.check.audit import audit
from shadowmmu.hardware.second_level import Ept
from shadowmmu.hardware.walk import WRITE, Features, paging, walk
from shadowmmu.x86.pte import Pte

LEVELS = {"2-level": 2, "pae": 2, "4-level": 3, "5-level": 3, "ept": 3, "ept-5-level": 3}
WIDTH = {"2-level": 32, "pae": 32, "4-level": 47, "5-level": 56, "ept": 48, "ept-5-level": 57}


def translate(tables: GuestTables, address: int) -> int | None:
    """By the walk of hardware/, which shares no code with the tables."""

    def read(gpa: int, size: int) -> int:
        return int.from_bytes(tables.vm.read_guest(gpa, size), "little")

    if tables.format.startswith("ept"):
        return Ept(read, lambda *_: None, tables.eptp).translate(address, WRITE, False)
    _, cr3, cr4, efer = tables.registers
    found = walk(paging(tables.registers.cr0, cr4, efer, Features()), read, cr3, address, WRITE)
    return None if isinstance(found, int) else found.address(address)


@pytest.mark.parametrize("format", LEVELS)
def test_what_is_mapped_is_found_by_a_walk(format: str) -> None:
    choose = random.Random(format)
    tables = GuestTables(Vm(memory_mib=16), format, 0x10000)
    step = 10 if format == "2-level" else 9
    for number in range(60):
        level = choose.randint(1, LEVELS[format])
        size = 1 << 12 + step * (level - 1)
        address, gpa = choose.randrange(1 << WIDTH[format]) & -size, choose.randrange(1 << 32) & -size
        at = tables.entry_at(address, level)
        try:
            at = tables.map(address, gpa, level=level)
        except ValueError as error:  # a large page of another turn is in the way
            assert "lies in a large page" in str(error) and number
            continue
        assert tables.entry_at(address, level) == at
        offset = choose.randrange(size)
        assert translate(tables, address + offset) == gpa + offset


@pytest.mark.parametrize("format", ["2-level", "pae", "4-level", "5-level"])
@pytest.mark.parametrize("roots", ["special", "legacy"])
def test_a_guest_runs_on_them(format: str, roots: str) -> None:
    vm = Vm(memory_mib=16, roots=roots, host_levels=5)
    vcpu = vm.vcpus[0]
    tables = GuestTables(vm, format, 0x10000)
    tables.map(0x5000, 0x123000, Pte.PRESENT)
    assert vcpu.set_sregs(*tables.registers)
    vcpu.enter()
    assert vcpu.page_fault(0x5000, 0) is Outcome.FIXED and vcpu.page_fault(0x5000, 2) is Outcome.INJECT
    tables.store = vcpu.write_emulated
    at = tables.map(0x5000, 0x456000)
    assert vcpu.page_fault(0x5000, 2) is Outcome.FIXED and vcpu.gva_to_gpa(0x5000, 2) == 0x456000
    assert at == tables.entry_at(0x5000) and audit(vm) == []


def test_nested_tables_of_either_vendor() -> None:
    svm, vmx = Vm(memory_mib=16, tdp=True), Vm(memory_mib=16, tdp=True, vendor="vmx")
    npt, ept = GuestTables(svm, "pae", 0x20000), GuestTables(vmx, "ept", 0x20000)
    for tables in (npt, ept):
        tables.map(0x7000, 0x789000)
    assert svm.vcpus[0].set_sregs(0x80000011, 0, 0x20, 0) and svm.vcpus[0].nested_vmrun(1, 0, 0, 0, npt.root)
    assert vmx.vcpus[0].set_sregs(0x80000011, 0, 0x20, 0x500) and vmx.vcpus[0].nested_vmentry(1, 0, 0, 0, ept.eptp)
    for vm in (svm, vmx):
        walked = vm.vcpus[0].nested_walk(0x7123)
        assert walked is not None and walked.gpa == 0x789123


def test_what_cannot_be_mapped_is_refused() -> None:
    vm = Vm(memory_mib=16)
    for format, root, message in (("3-level", 0x1000, "format is '3-level'; choose one of '2-level'"), ("pae", 0x1020, "root is 0x1020")):
        with pytest.raises(ValueError, match=message):
            GuestTables(vm, format, root)
    tables = GuestTables(vm, "pae", 0x1000)
    tables.map(0x200000, 0x400000, level=2)
    for address, gpa, level, message in (
        (0x5001, 0, 1, "address 0x5001 and gpa 0x0 must be multiples of 0x1000"), (0x5000, 0x1000, 2, "multiples of 0x200000"),
        (0, 0, 3, "level is 3; pae tables map memory at levels 1 to 2"),
        (0, 0, -5, "level is -5"), (0, 0, 1 << 40, "level is 1099511627776"), (1 << 64, 0, 1, "address is 18446744073709551616"),
        (-4096, 0, 1, "address is -4096"), (0, 1 << 52, 1, "gpa is 4503599627370496"),
        (0x205000, 0, 1, "0x205000 lies in a large page of level 2"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            tables.map(address, gpa, level=level)
    with pytest.raises(TypeError, match="address is 'x'; it must be an integer"):
        tables.map("x", 0)
    with pytest.raises(ValueError, match="gpa is 4294967296; it must lie between 0 and 4294967295"):
        GuestTables(vm, "2-level", 0x1000).map(0, 1 << 32)
    with pytest.raises(ValueError, match="level is 9"):
        tables.entry_at(0, 9)
    with pytest.raises(ValueError, match="give `eptp`"):
        _ = GuestTables(vm, "ept", 0x1000).registers
