# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios of what the host does: MMIO, memslots that go and come, pages taken away, dirty logging; and real mode."""

from __future__ import annotations

from kit.bits import ALL
from kit.guest import Guest, Paged
from kit.layout import (
    DATA,
    DATA_MEMORY,
    HIGH,
    HUGE,
    HUGE_MEMORY,
    LOGGED,
    LOGGED_MEMORY,
    LOST,
    LOST_MEMORY,
    MMIO,
    MMIO_ADDRESS,
    PAGE,
    frame,
)
from kit.rights import first_touches


def flat_basic(g: Guest) -> None:
    """without paging: first touches"""
    first_touches(g, DATA)


def _mapped(g: Guest, va: int, gpa: int, pages: int) -> int:
    """Map the pages if the guest has tables: the address by which the guest reaches them."""
    if isinstance(g, Paged):
        g.tables.map_range(va, gpa, pages)
        return va
    return gpa


def mmio(g: Guest) -> None:
    """MMIO: first access, later ones, the generation after memslots changed; then ordinary memory there"""
    at = _mapped(g, MMIO, MMIO_ADDRESS, 4)
    g.read(at, "first access, a read")
    g.read(at)
    g.write(at + 4, 0x55)
    g.write(at + PAGE, 1, "first access, a write")
    g.read(at + PAGE)
    g.host("delslot 2", note="all is zapped; a new generation")
    g.read(at, "of the old generation")
    g.write(at, 2)
    g.host("readd 2 0")
    g.read(at)
    g.read(DATA if isinstance(g, Paged) else DATA_MEMORY)
    if isinstance(g, Paged):
        g.edit_flush(g.tables, at, 1, frame(1) | ALL, "memory in place of MMIO")
        g.read(at)


def late(g: Paged) -> None:
    """memory that comes where MMIO was: a sync keeps the marks; an old mark with W becomes a writable entry, of a table too"""
    g.tables.map_range(LOST, LOST_MEMORY, 16)
    loose = LOST_MEMORY + 3 * PAGE
    g.tables.map(LOST + 9 * PAGE, loose)
    g.host("delslot 2", note="all is zapped")
    for number in (0, 1, 3):
        g.write(LOST + number * PAGE, 0x10 + number, "MMIO")
    g.host("readd 2 1", note="memory, whose dirty pages are logged; the marks are there")
    g.edit(g.tables, LOST + 8 * PAGE, 1, LOST_MEMORY | ALL, "the table becomes unsync")
    g.cr3(g.tables.root, "its sync renews the marks")
    for number in (0, 1, 0):
        g.write(LOST + number * PAGE, 0x20 + number, "to the VMM")
        g.read(LOST + number * PAGE, "from the VMM")
        g.read(LOST + 8 * PAGE, "the memory of the first page, through another entry")
    g.host("dirtylog 2", "flags 3 1", "flags 3 0", note="the marks are of an old generation")
    g.write(LOST + 9 * PAGE, frame(2) | ALL, "a table in the new memory, through an entry that was no mark")
    g.edit_flush(g.tables, HIGH, 2, loose | ALL)
    g.read(HIGH, "it is shadowed")
    g.write(LOST + 3 * PAGE, frame(4) | ALL, "to the table, through an old mark")
    g.invlpg(HIGH)
    g.read(HIGH, "the old entry, or the new one")
    g.read(LOST, "memory again")
    g.write(LOST + PAGE, 0x31)
    g.host("dirtylog 2")


def slots(g: Guest) -> None:
    """a slot deleted, reached as MMIO, there again, read-only; pages that the host takes away or protects"""
    at = _mapped(g, LOST, LOST_MEMORY, 16)
    data = DATA if isinstance(g, Paged) else DATA_MEMORY
    g.write(at, 0x51)
    g.read(at + PAGE)
    g.read(data)
    g.host("stats beforedel", "delslot 2", "stats afterdel")
    g.read(data)
    g.read(at, "MMIO now")
    g.host("readd 2 0")
    g.read(at, "memory again")
    g.write(at + PAGE, 2)
    g.read(data)
    g.host(f"madvise {LOST_MEMORY:x} {PAGE:x}", note="the host takes the page away")
    g.read(at, "a page of zeroes")
    g.write(at, 3)
    g.host(f"mprotect {LOST_MEMORY:x} {PAGE:x} 0", f"mprotect {LOST_MEMORY:x} {PAGE:x} 1")
    g.write(at, 4)
    g.read(at)
    g.host("delslot 2", "readd 2 2", note="read-only")
    g.read(at)
    g.write(at, 5, "goes to the VMM, as MMIO")
    g.host("delslot 2", "readd 2 0")
    g.write(at, 6)


def dirty(g: Guest) -> None:
    """dirty logging of a slot on small pages and of one on hugetlb pages; fast page faults; logging off again"""
    small = _mapped(g, LOGGED, LOGGED_MEMORY, 16)
    huge = HUGE_MEMORY
    if isinstance(g, Paged):
        g.tables.map_large(HUGE, HUGE_MEMORY, 4 << 20)
        huge = HUGE
    g.write(small, 1)
    g.write(small + PAGE, 1)
    g.read(small + 2 * PAGE)
    g.write(huge, 1)
    g.read(huge + 5 * PAGE)
    g.host("flags 3 1", note="logging on")
    g.write(small, 2)
    g.write(small + 2 * PAGE, 2)
    g.read(small + PAGE)
    g.host("dirtylog 3")
    g.write(small, 3, "without paging a fast page fault")
    g.write(small + PAGE, 3)
    g.read(small + 2 * PAGE)
    g.write(small + 3 * PAGE, 3)
    g.host("dirtylog 3", "dirtylog 3")
    g.write(small, 4)
    _log_huge(g, huge)
    g.host("flags 3 0")
    g.write(small, 5)


def _log_huge(g: Guest, huge: int) -> None:
    g.host("flags 1 1", note="logging of the hugetlb slot on")
    g.write(huge, 2, "split into small pages")
    g.write(huge + PAGE, 2)
    g.read(huge + 5 * PAGE)
    g.write(huge + 5 * PAGE, 5)
    g.host("dirtylog 1")
    g.write(huge, 3)
    g.host("flags 1 0", note="off: what can be large again is zapped")
    g.write(huge, 4)
    g.read(huge + 3 * PAGE)


def real_basic(g: Guest) -> None:
    """real mode: first touches, a slot deleted and there again, a page taken away"""
    for number in range(1, 8):
        g.memory.write_word(number * PAGE, 0xEA00_0000 + number, 4)
    for number in (1, 2, 3, 1):
        g.read(number * PAGE)
    g.write(1 * PAGE, 1)
    g.write(4 * PAGE, 2)
    g.read(4 * PAGE)
    g.host("delslot 2", note="all is zapped")
    g.read(1 * PAGE)
    g.write(5 * PAGE, 3)
    g.host("readd 2 0")
    g.read(1 * PAGE)
    g.host(f"madvise {6 * PAGE:x} {PAGE:x}")
    g.read(6 * PAGE)
    g.write(6 * PAGE, 4)
