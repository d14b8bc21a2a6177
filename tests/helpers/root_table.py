# SPDX-License-Identifier: GPL-2.0-only
"""The root table: which root each kind of guest gets, in every design, on which host; and a VM of each row."""

from __future__ import annotations

from typing import NamedTuple

from shadowmmu import ROOT_DESIGNS, GuestTables, Outcome, Vm
from shadowmmu.x86.control import Cr0, Cr4, Efer
from shadowmmu.x86.pferr import Pferr

PAGING = int(Cr0.PE | Cr0.PG | Cr0.WP)
ROOT, ADDRESS, PAGE = 0x10000, 0x40005000, 0x200000
USER_WRITE = int(Pferr.USER | Pferr.WRITE)


class Mode(NamedTuple):
    levels: int
    cr0: int
    cr4: int
    efer: int


MODES = {
    "nonpaging": Mode(0, int(Cr0.PE), 0, 0),
    "2-level": Mode(2, PAGING, int(Cr4.PSE), 0),
    "pae": Mode(3, PAGING, int(Cr4.PAE), int(Efer.NXE)),
    "4-level": Mode(4, PAGING, int(Cr4.PAE), int(Efer.NXE | Efer.LME | Efer.LMA)),
    "5-level": Mode(5, PAGING, int(Cr4.PAE | Cr4.LA57), int(Efer.NXE | Efer.LME | Efer.LMA)),
}


class Row(NamedTuple):
    """What the chain looks like, on roots of special pages and on bare ones: a letter a level from the top, s special, b bare
    table, n normal, p passthrough."""

    name: str
    mode: str
    host_levels: int
    tdp: bool
    nested: str | None
    special: str
    bare: str
    vendor: str = "svm"

    def chain(self, roots: str) -> str:
        return self.bare if ROOT_DESIGNS[roots].bare else self.special


ROWS = [
    Row("1 nonpaging", "nonpaging", 4, False, None, "sn", "bn"),
    Row("2 2-level", "2-level", 4, False, None, "sn", "bn"),
    Row("3 pae", "pae", 4, False, None, "sn", "bn"),
    Row("4 4-level", "4-level", 4, False, None, "nnn", "nnn"),
    Row("5 5-level", "5-level", 5, False, None, "nnnn", "nnnn"),
    Row("6 tdp", "pae", 4, True, None, "nnn", "nnn"),
    Row("6 tdp 5-level host", "pae", 5, True, None, "nnnn", "nnnn"),
    Row("6 tdp ept", "pae", 4, True, None, "nnn", "nnn", "vmx"),
    Row("7 npt on a 32-bit host", "pae", 3, True, None, "sn", "bn"),
    Row("8 npt of a 2-level L1, 32-bit host", "2-level", 3, True, "npt", "sn", "bn"),
    Row("8 npt of a pae L1, 32-bit host", "pae", 3, True, "npt", "sn", "bn"),
    Row("9 npt of a 2-level L1", "2-level", 4, True, "npt", "ssn", "bbn"),
    Row("9 npt of a pae L1", "pae", 4, True, "npt", "ssn", "bbn"),
    Row("10 npt of a 2-level L1, 5-level host", "2-level", 5, True, "npt", "sssn", "bbbn"),
    Row("10 npt of a pae L1, 5-level host", "pae", 5, True, "npt", "sssn", "bbbn"),
    Row("11 npt of a 4-level L1", "4-level", 4, True, "npt", "nnn", "nnn"),
    Row("12 npt of a 4-level L1, 5-level host", "4-level", 5, True, "npt", "pnnn", "pnnn"),
    Row("13 npt of a 5-level L1, 5-level host", "5-level", 5, True, "npt", "nnnn", "nnnn"),
    Row("15 ept", "4-level", 4, True, "ept", "nnn", "nnn", "vmx"),
    Row("15 ept of 5 levels", "4-level", 5, True, "ept5", "nnnn", "nnnn", "vmx"),
    Row("16 nested, no nested paging, pae L2", "pae", 4, False, "off", "sn", "bn"),
    Row("16 nested, no nested paging, 4-level L2", "4-level", 4, False, "off", "nnn", "nnn"),
]


def start(row: Row, roots: str) -> Vm:
    """A VM of this row, entered, with L2 running where the row is nested."""
    vm = Vm(
        memory_mib=8,
        roots=roots,
        host_levels=row.host_levels,
        tdp=row.tdp,
        vendor=row.vendor,
        maxphyaddr=51 if row.nested == "ept5" else 40,
    )
    vcpu = vm.vcpus[0]
    mode = MODES[row.mode]
    tables = GuestTables(vm, {"ept": "ept", "ept5": "ept-5-level"}.get(row.nested or "", row.mode), ROOT) if mode.levels else None
    if tables:
        tables.map(ADDRESS, PAGE)
    l1_cr3 = 0x80000  # an empty table: L1 itself is not run
    assert vcpu.set_sregs(mode.cr0, l1_cr3 if row.nested else ROOT, mode.cr4, mode.efer)
    if row.nested == "npt":
        assert vcpu.nested_vmrun(int(Cr0.PE), 0, 0, 0, ROOT)
    elif tables and row.nested in ("ept", "ept5"):
        assert vcpu.nested_vmentry(int(Cr0.PE), 0, 0, 0, tables.eptp)
    elif row.nested == "off":
        assert vcpu.nested_vmrun(mode.cr0, ROOT, mode.cr4, mode.efer)
    vcpu.enter()
    return vm


def chain(vm: Vm) -> str:
    """The tables from the root to level 2 on the path of the faulted address, a letter each."""
    root, levels = vm.vcpus[0].root, vm.vcpus[0].levels[1]
    assert root is not None
    letters, table = "", root
    for level in range(levels, 1, -1):
        page = vm.shadow_page(table)
        if page is None:
            letters += "b"
        elif page.special:
            letters += "s"
        else:
            letters += "p" if page.role & 0x40000 else "n"
        assert page is None or page.level == level
        table = vm.read_host_u64(table + (ADDRESS >> (12 + 9 * (level - 1)) & 0x1FF) * 8) & 0x000FFFFFFFFFF000
        assert table
    return letters


def fault(vm: Vm, row: Row) -> Outcome:
    """The address is a guest physical one for direct and nested tables, of an unmapped page for those without memory there."""
    return vm.vcpus[0].page_fault(ADDRESS, USER_WRITE)
