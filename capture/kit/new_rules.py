# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios each of which shows a rule that later kernels have and Linux 6.1 has not (docs/kernels.md)."""

from __future__ import annotations

from collections.abc import Callable

from kit.bits import ALL, CR4_PAE, EFER_LMA, EFER_SVME, A, D, P, U
from kit.guest import P64, PAE32, Guest, Paged
from kit.layout import HIGH, HUGE_MEMORY, L2_DATA, L2_TABLES, LOST, LOST_MEMORY, MMIO, MMIO_ADDRESS, PAGE, frame, page
from kit.rights import RET
from kit.svm import L2_TABLE_PAGES, After, Hypervisor, Vmcb
from kit.tables import PAE

CHANGES = 40
"""Each is two changes of a memslot, and each of these adds 2 to the generation: beyond the 7 bits that a mark holds low."""
SLOT_ZAP_ALL = 1 << 7
"""KVM_X86_QUIRK_SLOT_ZAP_ALL, since 6.12: a memslot that goes takes all mappings with it."""
NCR3_BIT_52 = 1 << 20
"""In the upper half of the nested CR3, above all address bits."""


def sync_accessed(g: Paged) -> None:
    """a sync takes rights away from entries that were in use: do they keep A?"""
    t = g.tables
    for number in range(4):
        g.write(page(number), number)
    g.edit(t, page(9), 1, frame(9) | ALL, "the table becomes unsync")
    for number in (1, 2):
        g.edit(t, page(number), 1, frame(number) | P | U | A | D, "read-only")
    g.cr3(t.root, "sync")
    g.read(page(5), "none of them")
    g.read(page(1))


def marks(g: Paged) -> None:
    """marks of MMIO with generations of more than 7 and more than 8 bits"""
    g.tables.map_range(MMIO, MMIO_ADDRESS, 2)
    g.read(MMIO)
    for _ in range(2):
        g.host(*("flags 3 1", "flags 3 0") * CHANGES)
        g.read(MMIO, "a mark of an old generation")
        g.write(MMIO + PAGE, 1)


def own_tables(g: Paged) -> None:
    """a 1 GiB page over the very tables that it is mapped by, and over hugetlb memory"""
    at = 2 * HIGH
    g.tables.map(at, 0, ALL, 3)
    g.write(at + HUGE_MEMORY, 1, "by 2 MiB or by 4 KiB?")
    g.read(at + HUGE_MEMORY + PAGE)
    g.write(at + g.tables.entry(page(9)), frame(20) | ALL, "an entry, through the large page")
    g.read(page(9))


def read_only_table(g: Paged) -> None:
    """a table of the guest's in a read-only memslot, where the CPU's walk has to set A; 6.1 never ends"""
    t = g.tables
    t.set(HIGH, 2, LOST_MEMORY | ALL)
    t.fill(LOST_MEMORY, frame(0), 8)
    t.map(LOST, LOST_MEMORY)
    g.read(HIGH, "while it is writable")
    g.host("delslot 2", "readd 2 2", note="read-only")
    g.read(LOST, "the table is mapped, read-only")
    g.read(HIGH + PAGE, "by way of it")
    g.write(HIGH + 2 * PAGE, 1)


def execute(g: Guest) -> None:
    """code in hugetlb memory is executed, for which NX splits a huge page if KVM is told so"""
    g.memory.write(HUGE_MEMORY + PAGE, RET)
    g.read(HUGE_MEMORY)
    g.call(HUGE_MEMORY + PAGE)
    g.read(HUGE_MEMORY + 2 * PAGE)


def high_ncr3(g: Hypervisor) -> None:
    """a nested CR3 with a bit above all addresses"""
    g.l2.read(page(0))
    g.run_l2()
    g.set_vmcb(Vmcb.NCR3 + 4, NCR3_BIT_52, "N_CR3, bit 52")
    g.l2.read(page(1))
    g.l2.vmmcall()
    g.vmrun(After.NPF, "L2 goes on, or L1 is told of a shutdown, or of an illegal control block")


def lone_child(g: Hypervisor) -> None:
    """L1 clears a level-2 entry: the nested table below has no parent any more"""
    t = g.nested
    at = 8 << 20
    t.map(at, frame(0))
    g.l2.read(at)
    g.run_l2()
    g.edit(t, at, 2, 0, "cleared")
    g.flush()
    g.l2.read(at)
    g.vmrun(After.NPF)


def seldom(g: Paged) -> None:
    """ADD, by which tables are seldom written: to a shadowed table, and to read-only memory, where no table is in the way"""
    t = g.tables
    table = t.table(HIGH, 2)
    t.map(HIGH, frame(0))
    t.map_range(LOST, LOST_MEMORY, 2)
    g.read(HIGH, "its tables are shadowed")
    g.host("delslot 2", "readd 2 2", note="read-only")
    g.read(HIGH)
    for number in range(2):
        g.add(table + (t.form.entries - 1 - number) * t.form.entry_size, ALL, "to its table of level 2, an empty entry")
    for number in (0, 0, 1):
        g.add(LOST + number * PAGE, 1, "goes to the VMM, as MMIO")


def slot_alone(g: Paged) -> None:
    """a memslot goes, or moves, with its own mappings and the shadow of a table in it: all else stays as it is"""
    t = g.tables
    t.map_range(LOST, LOST_MEMORY, 4)
    t.set(HIGH, 2, LOST_MEMORY + 8 * PAGE | ALL)
    t.fill(LOST_MEMORY + 8 * PAGE, frame(0), 4)

    def touch() -> None:
        for va in (page(0), LOST, LOST + PAGE, HIGH, HIGH + PAGE):
            g.read(va)
        g.write(page(1), 1)

    g.cpu = [f"noquirks {SLOT_ZAP_ALL:x}"]
    touch()
    g.host("delslot 2")
    touch()
    g.host("readd 2 0")
    touch()
    g.write(LOST + 2 * PAGE, 2)
    g.host(f"move 2 {LOST_MEMORY + (1 << 20):x}")
    touch()
    g.host(f"move 2 {LOST_MEMORY:x}", "flags 2 1")
    touch()
    g.host("dirtylog 2", "delslot 2")
    g.read(page(2))
    g.read(LOST)


def _translated_before_it_runs(g: Hypervisor) -> None:
    """An L2 with PAE tables, two of whose addresses the host translates between VMRUN and its first step."""
    own = g.l2_tables(PAE)
    g.nested.map_range(L2_TABLES, L2_TABLES, L2_TABLE_PAGES)
    g.set_vmcb(Vmcb.CR4, CR4_PAE)
    g.l2.read(L2_DATA)
    g.stop_in_l2(f"translate {L2_DATA:x}", f"translate {own.root:x}")


def l2_pdptes(g: Hypervisor) -> None:
    """an address of a PAE L2 is translated before it runs: by L1's PDPTEs, or by its own?"""
    _translated_before_it_runs(g)


def no_long_mode(g: Hypervisor) -> None:
    """L2's EFER has LMA and not LME: are its PAE tables of three levels, or of four?"""
    g.set_vmcb(Vmcb.EFER, EFER_SVME | EFER_LMA, "EFER.LMA without LME")
    _translated_before_it_runs(g)


PAGED: dict[str, Callable[[Paged], None]] = {
    "syncaccessed": sync_accessed, "marks": marks, "rotable": read_only_table, "slotalone": slot_alone,
}  # fmt: skip
ONE_MODE = (("owntables", P64, own_tables), ("seldom", PAE32, seldom), ("seldom", P64, seldom))
UNPAGED: dict[str, Callable[[Guest], None]] = {"execute": execute}
NESTED: dict[str, Callable[[Hypervisor], None]] = {
    "highncr3": high_ncr3, "child": lone_child, "pdptes": l2_pdptes, "lma": no_long_mode,
}  # fmt: skip
