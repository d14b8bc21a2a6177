# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios of a guest's rights: first touches, accessed and dirty bits, protection, CR0.WP, SMEP and SMAP, CR4 and EFER."""

from __future__ import annotations

from kit.bits import (
    ALL,
    CR0_PG,
    CR0_WP,
    CR3_NOFLUSH,
    CR4_PCIDE,
    CR4_PGE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LMA,
    EFER_NXE,
    NX,
    RESERVED,
    A,
    D,
    G,
    P,
    U,
    W,
)
from kit.guest import P32, P57, P64, PAE32, Guest, Paged
from kit.layout import PAGE, TABLES, frame, page

RET = b"\xc3"


def first_touches(g: Guest, at: int) -> None:
    """Reads and writes of pages not touched yet; `at` is the first of four."""
    g.read(at, "first touch, a read")
    g.read(at, "again")
    g.write(at, 0x1111, "a write while the guest's D bit is clear")
    g.write(at + PAGE, 0x2222, "first touch, a write")
    for number in (1, 2, 3):
        g.read(at + number * PAGE)


def basic(g: Paged) -> None:
    """first touches; not present, present, remapped with INVLPG and without, unmapped, read-only; A and D bits"""
    t = g.tables
    first_touches(g, page(0))
    t.set(page(4), 1, 0)
    g.read(page(4), "not present: #PF")
    g.edit(t, page(4), 1, frame(20) | ALL, "present")
    g.read(page(4), "needs no INVLPG")
    for number in (21, 22, 23):
        g.edit_flush(t, page(4), 1, frame(number) | ALL, "remapped")
        g.read(page(4), "the new page")
    g.edit(t, page(5), 1, frame(30) | ALL, "remapped before its first touch")
    g.read(page(5), "needs no INVLPG")
    g.edit(t, page(0), 1, frame(31) | ALL, "remapped without INVLPG")
    g.read(page(0), "the old page or the new one")
    g.cr3(t.root, "the same root again")
    g.read(page(0), "the new page")
    g.read(page(4))
    g.edit_flush(t, page(1), 1, 0, "unmapped")
    g.read(page(1), "#PF")
    g.write(page(1), 1, "#PF")
    g.edit_flush(t, page(2), 1, frame(2) | P | U, "read-only")
    g.read(page(2))
    g.write(page(2), 1, "#PF: WP is set")
    g.edit(t, page(2), 1, frame(2) | ALL, "writable again")
    g.write(page(2), 2, "a fault that the guest need not see")
    g.read(page(2))
    for bits, note in ((A | D, "A and D set beforehand"), (0, "A and D cleared by the guest")):
        g.edit_flush(t, page(3), 1, frame(3) | ALL | bits, note)
        g.read(page(3))
        g.write(page(3), 3 if bits else 4)
    g.read(t.entry(page(3)), "the guest reads its entry")


def perm(g: Paged) -> None:
    """user and supervisor, read-only, NX, a reserved bit; seen from both privilege levels"""
    t = g.tables
    t.map(page(1), frame(1), P | W)
    t.map(page(2), frame(2), P | U)
    t.map(page(3), frame(3), P)
    g.memory.write(frame(6), RET)
    g.memory.write(frame(7), RET)
    g.write(page(0), 1)
    g.write(page(1), 1)
    g.write(page(2), 1, "read-only: #PF")
    g.read(page(2))
    g.read(page(3))
    with g.user():
        g.read(page(0))
        g.write(page(0), 2)
        g.read(page(1), "the supervisor's: #PF")
        g.write(page(1), 2, "#PF")
        g.read(page(2))
        g.write(page(2), 2, "#PF")
        g.read(page(3), "#PF")
        g.read(page(8), "first touch by the user, a read")
        g.write(page(9), 1, "first touch by the user, a write")
    g.call(page(6), "execute")
    g.call(page(6))
    if g.mode is not P32:
        _no_execute(g)
    with g.user():
        pass


def _no_execute(g: Paged) -> None:
    t = g.tables
    t.map(page(7), frame(7), ALL | NX)
    g.call(page(7), "NX: #PF of a fetch")
    g.read(page(7))
    g.write(page(7) + 16, 1)
    g.call(page(7), "NX again")
    g.edit_flush(t, page(7), 1, frame(7) | ALL, "NX cleared")
    g.call(page(7))
    g.edit_flush(t, page(6), 1, frame(6) | ALL | NX, "NX set")
    g.call(page(6), "#PF of a fetch")
    t.map(page(10), frame(10), ALL | RESERVED)
    g.read(page(10), "a reserved bit: #PF with RSVD")


def wp(g: Paged) -> None:
    """CR0.WP off and on, with the supervisor's writes to read-only pages of both kinds"""
    t = g.tables
    t.map(page(1), frame(1), P | U)
    t.map(page(2), frame(2), P)
    t.map(page(3), frame(3), P | U)
    off, on = g.first_cr0, g.first_cr0 | CR0_WP
    g.read(page(1))
    g.write(page(1), 1, "WP off: a write to the user's read-only page")
    g.read(page(1))
    g.write(page(2), 1, "WP off: the supervisor's read-only page")
    with g.user():
        g.read(page(1), "the user reads it meanwhile")
        g.write(page(1), 2, "#PF")
    g.write(page(1), 3, "and the kernel writes again")
    g.cr0(on, "WP on")
    g.write(page(1), 4, "#PF")
    g.read(page(1))
    g.write(page(2), 4, "#PF")
    g.write(page(3), 4, "#PF")
    g.write(page(0), 4)
    g.cr0(off, "WP off")
    for number in (1, 3, 0):
        g.write(page(number), 5)
    g.cr0(on, "WP on")
    g.read(page(1))
    g.write(page(3), 6, "#PF")
    g.cr0(off, "WP off")
    g.write(page(3), 7)


def smep(g: Paged) -> None:
    """SMEP and SMAP, each with WP on and off"""
    t = g.tables
    t.map_range(0, 0, TABLES // PAGE, P | W)  # the kernel's own code must be the supervisor's
    t.map(page(1), frame(1), P | W)
    t.map(page(2), frame(2), P | U)
    for number in (0, 1):
        g.memory.write(frame(number), RET + bytes(3))
    g.read(page(0))
    g.call(page(0), "the supervisor executes a user page")
    g.cr4(g.first_cr4 | CR4_SMEP, "SMEP on")
    g.call(page(0), "#PF of a fetch")
    g.call(page(1))
    g.read(page(0))
    g.cr0(g.first_cr0 & ~CR0_WP, "WP off")
    g.call(page(0), "#PF of a fetch")
    g.write(page(2), 1, "WP off: a write to the user's read-only page")
    g.call(page(2), "#PF of a fetch")
    g.read(page(2))
    g.cr4(g.first_cr4 | CR4_SMEP | CR4_SMAP, "SMAP on too")
    g.read(page(0), "#PF")
    g.write(page(2), 2, "#PF")
    g.cr0(g.first_cr0, "WP on")
    g.read(page(0), "#PF")
    g.cr4(g.first_cr4, "both off")
    g.read(page(0))
    g.write(page(2), 3, "#PF")


def ctl(g: Paged) -> None:
    """CR4.PGE and PSE, EFER.NXE, paging off and on; PCIDs in long mode"""
    t = g.tables
    t.map(page(1), frame(1), ALL | G)
    t.map(page(2), frame(2), P | W)
    g.read(page(0))
    g.read(page(1))
    g.cr4(g.first_cr4 | CR4_PGE, "PGE on")
    g.read(page(1))
    g.cr3(t.root)
    g.read(page(1))
    g.cr4(g.first_cr4, "PGE off")
    g.read(page(1))
    if g.mode is P32:
        g.cr4(g.first_cr4 & ~CR4_PSE, "PSE off")
        g.read(page(0))
        g.cr4(g.first_cr4, "PSE on")
        g.read(page(0))
    if g.mode in (PAE32, P64):
        g.efer(g.first_efer & ~(EFER_NXE | EFER_LMA), "NXE off")
        g.read(page(0))
        g.efer(g.first_efer & ~EFER_LMA, "NXE on")
        g.read(page(0))
    if g.mode in (P64, P57):
        _pcids(g)
        return
    g.cr0(g.first_cr0 & ~CR0_PG, "paging off")
    g.read(frame(0))
    g.cr0(g.first_cr0, "paging on")
    g.read(page(0))


def _pcids(g: Paged) -> None:
    first, second = g.tables, g.new_root(low=g.tables)
    second.map(page(0), frame(20))
    g.cr4(g.first_cr4 | CR4_PCIDE, "PCIDE on")
    for cr3, note in (
        (second.root | 1, "second root, PCID 1"),
        (first.root | 2 | CR3_NOFLUSH, "first root, PCID 2, no flush"),
        (second.root | 1 | CR3_NOFLUSH, "second root, PCID 1, no flush"),
        (second.root | 1, "the same, with a flush"),
    ):
        g.cr3(cr3, note)
        g.read(page(0))
