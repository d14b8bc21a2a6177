# SPDX-License-Identifier: GPL-2.0-only
"""What a fault meets: the way of its address through the shadow tables, and the shadows of the page it leads to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shadowmmu.check.replayed.replayed_vm import ReplayedVm
from shadowmmu.check.special_roots.page_census import Census, Key
from shadowmmu.engine.arena.spte import Spte
from shadowmmu.hardware.path import path
from shadowmmu.trace.events import AnyEvent, GetPage, SpteRequested, UnsyncPage
from shadowmmu.trace.fields import FRAME_BITS
from shadowmmu.x86.pte import Pte

PRESENT, WRITE, MARK = int(Pte.PRESENT), int(Pte.WRITABLE), int(Spte.MMIO) & ~int(Pte.PRESENT)
SET_BY_USE = int(Pte.ACCESSED | Pte.DIRTY)


class Step(NamedTuple):
    """One entry on the way."""

    page: Key | None
    """Whose entry it is; None: a root without a guest table."""
    at: int
    """Which entry."""
    unsync: bool
    entry: object
    """The page it leads to, or its own bits but for A and D."""


class Leaf(NamedTuple):
    """Where the way ends."""

    page: Key | None
    entry: int
    level: int


def way(side: ReplayedVm, census: Census, address: int) -> tuple[list[Step], Leaf | None]:
    """The entries that hold for `address` below the loaded root, from the top, and the last of them."""
    steps: list[Step] = []
    leaf = None
    if not side.cpu.root:
        return steps, leaf
    for entry in path(lambda hpa, _size: side.vm.read_host_u64(hpa), side.cpu.root, side.cpu.level, address):
        page = census.name(entry.at)
        leaf = Leaf(page, entry.value, entry.level)
        ends = entry.leaf or not entry.present
        if page is not None or ends:
            leads_to = entry.value & ~SET_BY_USE if ends else census.name(entry.value & FRAME_BITS)
            steps.append(Step(page, entry.number, page in census.unsync, leads_to))
    return steps, leaf


def is_unlinked(side: ReplayedVm, census: Census, address: int) -> bool:
    """The way ends in a special page, which gets its entries when they are needed."""
    leaf = way(side, census, address)[1]
    return leaf is not None and leaf.page is None and leaf.level >= 3 and not leaf.entry & PRESENT


Shadows = dict[int, frozenset[tuple[Key, bool]]]
"""gfn of a guest table -> the pages that shadow it, each with whether it is unsync: they decide whether a store to it exits."""


def tables(census: Census, gfn: int) -> frozenset[tuple[Key, bool]]:
    """Those of one table."""
    return frozenset((key, key in census.unsync) for key in census.tables.get(gfn, ()))


def shadows(census: Census) -> Shadows:
    """Those of every table, as they are now."""
    return {gfn: tables(census, gfn) for gfn in census.tables}


class BothPaths(NamedTuple):
    """What an input on an address meets in the kernel's VM and in ours."""

    theirs: list[Step]
    ours: list[Step]
    their_shadows: Shadows
    our_shadows: Shadows

    def differs(self, kernel: Sequence[AnyEvent], ours: Sequence[AnyEvent]) -> bool:
        """The ways differ, or the shadows of a page that is mapped."""
        if self.theirs != self.ours:
            return True
        gfns = {int(event.gfn) for event in (*kernel, *ours) if isinstance(event, SpteRequested | GetPage | UnsyncPage)}
        return any(self.their_shadows.get(gfn, NONE) != self.our_shadows.get(gfn, NONE) for gfn in gfns)


NONE: frozenset[tuple[Key, bool]] = frozenset()
