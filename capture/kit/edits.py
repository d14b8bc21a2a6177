# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios of a guest's edits of its tables: large pages, several roots, upper entries, floods of writes, unsync tables."""

from __future__ import annotations

from kit.bits import ALL, PS, P, U
from kit.guest import P32, P64, PAE32, Paged
from kit.layout import (
    BIG,
    BIG_MEMORY,
    DATA,
    DATA_PAGES,
    HIGH,
    HUGE,
    HUGE_MEMORY,
    PAGE,
    frame,
    page,
)
from kit.tables import PageTables

FOUR_MIB = 4 << 20
UPPER_HALF = 0xFFFF_8000_0000_0000
"""The first address of the upper half of a 4-level address space."""


def big(g: Paged) -> None:
    """large pages on 4 KiB and on hugetlb memory, both 2 MiB halves of a 4 MiB page; split, merged, read-only"""
    t = g.tables
    for start in range(0, FOUR_MIB, g.form.large):  # in turn, as the tables are taken in this order
        t.map(BIG + start, BIG_MEMORY + start, ALL, 2)
        t.map(HUGE + start, HUGE_MEMORY + start, ALL, 2)
    for part in range(8):
        g.memory.write_word(BIG_MEMORY + part * 0x80000, 0xB160_0000 + part, 4)
    g.read(BIG, "a large page on small ones")
    g.write(BIG + 4, 1)
    g.read(BIG + 0x80000)
    g.read(BIG + 0x20_0000, "its second half, or the next")
    g.write(BIG + 0x38_0000, 2)
    g.read(HUGE, "a large page on hugetlb memory")
    g.write(HUGE + 8, 0x77)
    g.read(HUGE + 8)
    g.write(HUGE + 0x20_0000, 0x78)
    g.read(HUGE + 0x3F_F000)
    _split_and_merge(g)
    g.edit_flush(t, HUGE, 2, HUGE_MEMORY | P | U | PS, "read-only")
    g.read(HUGE + 8)
    g.write(HUGE + 8, 1, "#PF")
    g.read(HUGE + 0x20_0000)
    t.map(page(10), HUGE_MEMORY + 5 * PAGE)
    g.read(page(10), "a small page on hugetlb memory")
    g.write(page(10), 9)


def _split_and_merge(g: Paged) -> None:
    t, table = g.tables, g.allocate()
    t.fill(table, BIG_MEMORY, g.form.entries)
    g.edit_flush(t, BIG, 2, table | ALL, "the large page becomes a table")
    g.read(BIG)
    g.write(BIG + PAGE, 3)
    g.read(BIG + 0x80000)
    g.edit_flush(t, BIG, 2, BIG_MEMORY | ALL | PS, "and a large page again")
    g.read(BIG)
    g.write(BIG + PAGE, 4)


def cr3(g: Paged) -> None:
    """six roots in turn, more than are cached; entries of roots that are not loaded change"""
    roots = [g.tables, *(g.new_root(low=g.tables) for _ in range(5))]
    for number, root in enumerate(roots):
        root.map_range(DATA, frame(8 * number), 4)
    g.read(page(0))
    for number in (1, 0, 1, 2, 0, 3, 4, 5, 0, 5, 1):
        g.cr3(roots[number].root, f"root {number}")
        g.read(page(0))
        g.write(page(1), 0x100 + number)
    first, second = roots[:2]
    g.edit(first, page(0), 1, frame(60) | ALL, "root 0, which is not loaded")
    g.read(page(0))
    g.cr3(first.root, "root 0")
    g.read(page(0), "must be the new page")
    g.edit(second, page(0), 1, frame(61) | ALL, "root 1, which is not loaded")
    g.edit(first, page(0), 1, frame(62) | ALL, "and the loaded one, without INVLPG")
    for number, root in ((1, second), (0, first)):
        g.cr3(root.root, f"root {number}")
        g.read(page(0))


def pde(g: Paged) -> None:
    """upper entries: another table, none, one table behind two entries with other rights; PDPTEs and PML4Es"""
    t = g.tables
    g.read(page(0))
    g.write(page(1), 1)
    other = g.allocate()
    t.fill(other, frame(32), 16)
    first = t.table(DATA)
    g.edit_flush(t, DATA, 2, other | ALL, "another table")
    g.read(page(0))
    g.write(page(1), 2)
    g.edit_flush(t, DATA, 2, 0, "none")
    g.read(page(0), "#PF")
    g.edit(t, DATA, 2, first | ALL, "the first table again")
    g.read(page(0))
    g.read(page(1))
    twin = (12 << 20) if g.mode is P32 else (8 << 20)
    t.set(twin, 2, first | P | U)
    g.read(twin, "the same table behind a read-only entry")
    g.write(twin, 1, "#PF")
    g.write(page(0), 0x33, "and through the writable one")
    g.edit(t, page(0), 1, frame(40) | ALL, "its entry changes for both")
    g.invlpg(page(0))
    g.invlpg(twin)
    g.read(page(0))
    g.read(twin)
    if g.mode is PAE32:
        _pdptes(g)
    if g.mode is P64:
        _upper_levels(g)


def _pdptes(g: Paged) -> None:
    t = g.tables
    t.map(HIGH, frame(0))
    g.read(HIGH, "behind the second PDPTE")
    g.write(t.root + 8, 0, "the PDPTE cleared in memory")
    g.read(HIGH, "the CPU holds the old one")
    g.cr3(t.root, "PDPTEs loaded")
    g.read(HIGH, "#PF")


def _upper_levels(g: Paged) -> None:
    t = g.tables
    t.map(UPPER_HALF, frame(0))
    t.map(HIGH, frame(1))
    g.read(UPPER_HALF)
    g.read(HIGH)
    g.edit_flush(t, HIGH, 3, 0, "PDPTE cleared")
    g.read(HIGH, "#PF")
    entry = t.get(UPPER_HALF, 4)
    g.edit_flush(t, UPPER_HALF, 4, 0, "PML4E cleared")
    g.read(UPPER_HALF, "#PF")
    g.edit(t, UPPER_HALF, 4, entry, "PML4E restored")
    g.read(UPPER_HALF)


def flood(g: Paged) -> None:
    """many writes to one table, through tables that it takes part in; a write that is not aligned"""
    t, size = g.tables, g.form.entry_size
    g.read(page(0))
    g.write(page(1), 1)
    for number in range(8):
        g.edit(t, page(8 + number), 1, frame(40 + number) | ALL, "level 1")
    g.read(page(8))
    g.read(page(0))
    for number in range(6):
        g.write(t.entry(0, 2) + (64 + number) * size, 0, "level 2, an empty entry")
    g.read(page(0))
    g.read(page(9))
    at = t.entry(page(1))
    g.write(at + 2, 0, "not aligned: breaks this entry and the next")
    g.invlpg(page(1))
    g.read(page(1))
    g.write(at, frame(1) | ALL, "repaired")
    g.write(at + size, frame(2) | ALL, "and the next")
    for number in (1, 2):
        g.invlpg(page(number))
    for number in (1, 2):
        g.read(page(number))
    g.edit_flush(t, page(8), 1, frame(50) | ALL)
    g.read(page(8))


def flood2(g: Paged) -> None:
    """many writes to a level-2 table that is not on the way to the writer's own pages: its shadow is zapped"""
    t, size = g.tables, g.form.entry_size
    t.map(HIGH, frame(0))
    t.map(HIGH + (8 << 20), frame(1))
    table = t.table(HIGH, 2)
    beside, later = (640, 652) if g.mode is P32 else (64, 80)  # entries of HIGH's table that map nothing
    g.read(HIGH)
    g.read(HIGH + (8 << 20))
    for number in range(5):
        g.write(table + (beside + number) * size, 0, f"write {number}")
    g.read(HIGH)
    g.read(HIGH + (8 << 20))
    g.write(table + later * size, 0)
    g.read(HIGH)


def unsync2(g: Paged) -> None:
    """two unsync tables, shared by two roots and by two entries; sync at a CR3 load and at a new role"""
    a, b = g.tables, g.new_root(low=g.tables)
    first, second, third = DATA, DATA + g.form.large, DATA + ((8 if g.mode is P32 else 6) << 20)
    b.set(first, 2, a.get(first, 2))
    a.map_range(second, frame(16), 8)
    b.set(second, 2, a.get(second, 2))
    for root in (None, b):
        if root:
            g.cr3(root.root, "root b")
        g.read(first)
        g.read(second)
    g.edit(a, first, 1, frame(40) | ALL, "the first table becomes unsync")
    g.edit(a, second, 1, frame(41) | ALL, "and the second")
    g.read(first + PAGE)
    g.cr3(a.root, "root a: sync")
    g.read(first)
    g.read(second)
    _unsync_again(g, b)
    g.edit(a, second, 1, frame(44) | ALL, "the second table is unsync")
    a.set(third, 2, a.table(second) | P | U)
    g.cr3(a.root)
    g.read(third, "the same table in another role")
    g.edit(a, second, 1, frame(45) | ALL, "a write while it has two shadows")
    g.invlpg(second)
    g.invlpg(third)
    g.read(second)
    g.read(third)


def _unsync_again(g: Paged, b: PageTables) -> None:
    a = g.tables
    g.edit(a, page(0), 1, frame(42) | ALL, "unsync again")
    g.cr3(a.root, "loaded again")
    g.read(page(0))
    g.edit(a, page(0), 1, 0)
    g.edit(a, page(1), 1, frame(43) | P | U, "a second entry")
    g.cr3(b.root, "root b")
    g.read(page(0), "#PF")
    g.read(page(1))
    g.write(page(1), 1, "#PF")


RECYCLED_TABLES, FEWEST_SHADOW_PAGES = 72, 64


def recycle(g: Paged) -> None:
    """more tables than KVM may have shadow pages: the oldest go"""
    g.dump_each_op = False
    tables = [HIGH + number * g.form.large for number in range(RECYCLED_TABLES)]
    for number, va in enumerate(tables):
        g.tables.map(va, frame(number % DATA_PAGES))
    g.read(DATA)
    g.host(f"nrpages {FEWEST_SHADOW_PAGES}")
    for va in tables:
        g.read(va)
    g.read(DATA)
    g.read(HIGH)
