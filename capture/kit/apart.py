# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios in which Linux 6.1, 6.12 and 7.3 part: roots outside memory, INVLPG, a sync while dirty pages are logged, CR0.WP."""

from __future__ import annotations

from kit.bits import ALL, CR0_ET, CR0_NE, CR0_PE, CR0_WP, A, D, P, U
from kit.guest import Guest, Paged
from kit.layout import LOGGED, LOGGED_MEMORY, PAGE, frame, page

NO_MEMORY = 0xE000_0000
FOURTH_GIGABYTE = 0xC000_0000


def nowhere(g: Paged) -> None:
    """CR3 to a page where there is no memory"""
    g.write(page(0), 1)
    g.cr3(NO_MEMORY, "nowhere")
    g.read(page(0))


def pdpt_nowhere(g: Paged) -> None:
    """a PDPTE that leads where there is no memory"""
    other = g.new_root(low=g.tables)
    g.memory.write_word(other.root + 3 * 8, NO_MEMORY | P, 8)
    g.write(page(0), 1)
    g.cr3(other.root, "PDPTE 3 leads nowhere")
    g.read(page(0))
    g.read(FOURTH_GIGABYTE, "by way of it")
    g.read(page(0))


def invlpg(g: Paged) -> None:
    """INVLPG in an unsync table: same, other frame, other rights, absent to present, unmapped"""
    t, used = g.tables, ALL | A | D
    for number in range(6):
        g.write(page(number), number)
    t.set(page(8), 1, 0)
    g.read(page(8), "absent")
    g.edit(t, page(9), 1, frame(9) | ALL, "table goes unsync")
    g.invlpg(page(0), "unchanged entry")
    g.read(page(0))
    for number, entry, note in (
        (1, frame(20) | used, "another frame"),
        (2, frame(2) | P | U | A, "read-only"),
        (8, frame(8) | used, "present now"),
        (3, 0, "unmapped"),
    ):
        g.edit(t, page(number), 1, entry, note)
        g.invlpg(page(number))
        g.read(page(number))
        if number == 2:
            g.write(page(2), 1)
    g.edit(t, page(4), 1, frame(21) | used, "another frame, sync by CR3")
    g.cr3(t.root)
    g.read(page(4))
    g.read(page(5))
    g.write(page(5), 5)


def sync_dirty(g: Paged) -> None:
    """sync of an unsync table while dirty pages are logged"""
    t = g.tables
    t.map_range(LOGGED, LOGGED_MEMORY, 16)
    for number in range(4):
        g.write(LOGGED + number * PAGE, number)
    g.host("flags 3 1")
    for number in range(4):
        g.write(LOGGED + number * PAGE, 10 + number)
    g.host("dirtylog 3")
    g.edit(t, LOGGED + 9 * PAGE, 1, LOGGED_MEMORY + 9 * PAGE | ALL, "unsync")
    g.cr3(t.root, "sync")
    g.host("dirtylog 3", note="what did the sync mark?")
    g.write(LOGGED, 0x77)
    g.host("dirtylog 3", "flags 3 0")


def flat_wp(g: Guest) -> None:
    """CR0.WP toggled without paging"""
    unpaged = CR0_PE | CR0_ET | CR0_NE
    g.write(frame(0), 1)
    g.cr0(unpaged)
    g.read(frame(0))
    g.cr0(unpaged | CR0_WP)
    g.read(frame(1))
