# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios of an L1 that runs an L2: edits of nested tables, large pages, several nested roots, memslots, a paged L2."""

from __future__ import annotations

from kit.bits import ALL, NX, PS, RESERVED, P, U, W
from kit.guest import P32, PAE32
from kit.layout import (
    BIG,
    BIG_MEMORY,
    DATA,
    DATA_MEMORY,
    HIGH,
    HUGE,
    HUGE_MEMORY,
    L2_DATA,
    L2_TABLES,
    LOGGED,
    LOGGED_MEMORY,
    LOST,
    LOST_MEMORY,
    MMIO,
    MMIO_ADDRESS,
    PAGE,
    frame,
    page,
)
from kit.svm import L2_TABLE_PAGES, After, Hypervisor

FOUR_MIB = 4 << 20


def _l2_reads(g: Hypervisor, va: int, note: str = "") -> None:
    """L2 reads, and gives itself back."""
    g.l2.read(va, note)
    g.run_l2()


def basic(g: Hypervisor) -> None:
    """L2's first touches; L1 remaps, unmaps and protects pages of L2, with a flush and without; faults reflected to L1"""
    t, l2 = g.nested, g.l2
    t.set(page(4), 1, 0)
    t.set(page(5), 1, frame(5) | P | U)
    l2.read(page(0))
    l2.read(page(0))
    l2.write(page(0), 1, "a write after the read")
    l2.write(page(1), 2, "first touch, a write")
    l2.read(page(2))
    g.run_l2(note="the first VMRUN")
    g.read(DATA_MEMORY, "L1 reads what L2 wrote")
    l2.read(page(0))
    g.run_l2(note="the same root")
    l2.read(page(4), "not present in the nested tables")
    g.vmrun(After.NPF)
    l2.write(page(5), 1, "read-only in the nested tables")
    g.vmrun(After.NPF)
    _l2_reads(g, page(5))
    _remaps(g)
    _takes_rights(g)
    t.map(page(12), frame(12), P | W)
    l2.read(page(12), "the supervisor's in the nested tables")
    g.vmrun(After.NPF)
    if g.mode is not P32:
        t.map(page(13), frame(13), ALL | NX)
        _l2_reads(g, page(13))
        t.map(page(14), frame(14), ALL | RESERVED)
        l2.read(page(14), "a reserved bit")
        g.vmrun(After.NPF)


def _remaps(g: Hypervisor) -> None:
    t = g.nested
    g.edit(t, page(4), 1, frame(20) | ALL, "present now")
    _l2_reads(g, page(4))
    for number in (21, 22, 23):
        g.edit(t, page(4), 1, frame(number) | ALL, "remapped")
        g.flush()
        _l2_reads(g, page(4))
        g.flush(False)
    g.edit(t, page(0), 1, frame(30) | ALL, "remapped, no flush")
    _l2_reads(g, page(0), "the old page or the new one")
    g.invlpga(page(0))
    _l2_reads(g, page(0))


def _takes_rights(g: Hypervisor) -> None:
    t, l2 = g.nested, g.l2
    g.edit(t, page(1), 1, 0, "unmapped")
    g.flush()
    l2.read(page(1))
    g.vmrun(After.NPF)
    g.flush(False)
    g.edit(t, page(2), 1, frame(2) | P | U, "read-only")
    g.flush()
    l2.write(page(2), 2)
    g.vmrun(After.NPF)
    g.flush(False)
    g.edit(t, page(2), 1, frame(2) | ALL, "writable again")
    l2.write(page(2), 3)
    g.run_l2()


def high(g: Hypervisor) -> None:
    """L2 touches all four gigabytes: four PDPTEs, or the four quadrants of a two-level root"""
    t, l2 = g.nested, g.l2
    low, top = 8 << 20, 0x3F80_0000
    for quadrant in range(4):
        t.map(quadrant * HIGH + low, frame(quadrant))
        t.map(quadrant * HIGH + top, frame(quadrant + 8))
    for quadrant in range(4):
        l2.read(quadrant * HIGH + low, f"gigabyte {quadrant}")
    l2.write(3 * HIGH + top, 1)
    l2.read(HIGH + top)
    l2.write(top, 2)
    g.run_l2()
    g.edit(t, HIGH + low, 1, frame(20) | ALL, "remapped in gigabyte 1")
    g.flush()
    _l2_reads(g, HIGH + low)
    g.flush(False)
    g.edit(t, 2 * HIGH + low, 2, 0, "a level-2 entry of gigabyte 2 cleared")
    _l2_faults(g, 2 * HIGH + low)
    if g.mode is PAE32:
        pdpte = t.entry(3 * HIGH, 3)
        g.write(pdpte, 0, "PDPTE 3 cleared")
        _l2_faults(g, 3 * HIGH + low)
        g.write(pdpte, t.get(3 * HIGH, 3), "PDPTE 3 restored")
        g.flush()
        _l2_reads(g, 3 * HIGH + low)
        g.flush(False)


def _l2_faults(g: Hypervisor, va: int) -> None:
    """After a flush L2 reads what it may not."""
    g.flush()
    g.l2.read(va)
    g.vmrun(After.NPF)
    g.flush(False)


def big(g: Hypervisor) -> None:
    """large nested pages on 4 KiB and on hugetlb memory; split, merged, read-only"""
    t, l2 = g.nested, g.l2
    for start in range(0, FOUR_MIB, g.form.large):  # in turn, as the tables are taken in this order
        t.map(BIG + start, BIG_MEMORY + start, ALL, 2)
        t.map(HUGE + start, HUGE_MEMORY + start, ALL, 2)
    l2.read(BIG)
    l2.write(BIG + 4, 1)
    l2.read(BIG + 0x20_0000)
    l2.write(BIG + 0x38_0000, 2)
    l2.read(HUGE)
    l2.write(HUGE + 8, 0x77)
    l2.write(HUGE + 0x20_0000, 0x78)
    g.run_l2()
    table = g.allocate()
    t.fill(table, BIG_MEMORY, g.form.entries)
    g.edit(t, BIG, 2, table | ALL, "the large page becomes a table")
    g.flush()
    for value, entry in ((3, None), (4, BIG_MEMORY | ALL | PS)):
        if entry is not None:
            g.edit(t, BIG, 2, entry, "and a large page again")
        l2.read(BIG)
        l2.write(BIG + PAGE, value)
        g.run_l2()
    g.edit(t, HUGE, 2, HUGE_MEMORY | P | U | PS, "read-only")
    l2.read(HUGE + 8)
    l2.write(HUGE + 8, 1)
    g.vmrun(After.NPF)


def ncr3(g: Hypervisor) -> None:
    """five nested roots in turn; entries of roots that are not loaded change"""
    l2 = g.l2
    roots = [g.nested, *(g.new_nested_root() for _ in range(4))]
    for number, root in enumerate(roots):
        root.map_range(DATA, frame(8 * number), 4)
    for number in (0, 1, 0, 2, 3, 4, 0, 1):
        g.set_nested_root(roots[number])
        l2.read(page(0))
        l2.write(page(1), 0x100 + number)
        g.run_l2()
    g.edit(roots[0], page(0), 1, frame(60) | ALL, "root 0, which is not loaded")
    _l2_reads(g, page(0))
    g.set_nested_root(roots[0])
    _l2_reads(g, page(0))
    g.flush()
    _l2_reads(g, page(0))


def slots(g: Hypervisor) -> None:
    """memslots deleted, MMIO from L2, pages taken away, dirty logging, while a nested root is loaded"""
    t, l2 = g.nested, g.l2
    for number in range(4):  # in turn, as the tables are taken in this order
        for va, gpa in ((LOST, LOST_MEMORY), (MMIO, MMIO_ADDRESS), (LOGGED, LOGGED_MEMORY)):
            t.map(va + number * PAGE, gpa + number * PAGE)
    l2.read(LOST)
    l2.write(LOST + PAGE, 1)
    l2.read(MMIO, "MMIO from L2")
    l2.write(MMIO + 4, 2)
    l2.write(LOGGED, 1)
    l2.read(LOGGED + PAGE)
    g.run_l2()
    g.host("delslot 2")
    l2.read(LOST, "MMIO now")
    _l2_reads(g, DATA)
    g.host("readd 2 0")
    _l2_reads(g, LOST)
    g.host(f"madvise {LOST_MEMORY:x} {PAGE:x}")
    l2.write(LOST, 3)
    g.run_l2()
    g.host("flags 3 1", "dirtylog 3")
    l2.write(LOGGED, 2)
    l2.write(LOGGED + PAGE, 2)
    g.run_l2()
    g.host("dirtylog 3")
    l2.write(LOGGED, 3)
    g.run_l2()
    g.host("dirtylog 3")


def l2pg(g: Hypervisor) -> None:
    """an L2 with tables of its own: faults on its tables in the nested tables, MMIO through both"""
    t, l2, own = g.nested, g.l2, g.l2_tables()
    t.map_range(L2_TABLES, L2_TABLES, L2_TABLE_PAGES)
    t.map(MMIO, MMIO_ADDRESS)
    own.map(L2_DATA + (1 << 20), MMIO)
    l2.read(L2_DATA)
    l2.write(L2_DATA + PAGE, 5)
    l2.read(L2_DATA + (1 << 20), "MMIO")
    changed = L2_DATA + 2 * PAGE
    l2.write(own.entry(changed), page(9) | ALL, "L2 edits its table")
    l2.invlpg(changed)
    l2.read(changed)
    l2.cr3(L2_TABLES)
    l2.read(changed)
    g.run_l2()
    g.edit(t, L2_TABLES + PAGE, 1, L2_TABLES + PAGE | P | U, "a table of L2 is read-only for it")
    g.flush()
    l2.read(L2_DATA + 3 * PAGE, "the CPU has to set the A bit there")
    g.vmrun(After.NPF)


def paged(g: Hypervisor) -> None:
    """an L2 with tables of its own and without nested paging: shadow pages of guest mode"""
    l2, own = g.l2, g.l2_tables()
    changed = L2_DATA + 2 * PAGE
    l2.read(L2_DATA)
    l2.write(L2_DATA + PAGE, 5)
    l2.write(own.entry(changed), frame(9) | ALL, "L2 edits its table")
    l2.invlpg(changed)
    l2.read(changed)
    g.run_l2()
    g.read(page(1))
    _l2_reads(g, L2_DATA + 3 * PAGE)
    g.flush()
    _l2_reads(g, L2_DATA)


def flat(g: Hypervisor) -> None:
    """an L2 without paging and without nested paging"""
    g.l2.read(frame(0))
    g.l2.write(frame(1), 1)
    g.run_l2()
    g.read(page(0))
    _l2_reads(g, frame(2))
