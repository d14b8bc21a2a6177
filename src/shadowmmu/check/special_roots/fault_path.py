"""What a fault meets: the way of its address through the shadow tables, and the shadows of the page it leads to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shadowmmu.check.replayed.replayed_vm import Side
from shadowmmu.check.special_roots.page_census import Census, Key
from shadowmmu.trace.events import AnyEvent, GetPage, SpteRequested
from shadowmmu.trace.fields import FRAME_BITS

PRESENT, WRITE, LARGE, MARK = 1, 2, 0x80, 1 << 51
SET_BY_USE = 0x60
"""A and D."""


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


def way(side: Side, census: Census, address: int) -> tuple[list[Step], Leaf | None]:
    """The entries that hold for `address` below the loaded root, from the top, and the last of them."""
    steps: list[Step] = []
    table, leaf = side.cpu.root, None
    for level in range(side.cpu.level, 0, -1):
        if not table:
            break
        index = address >> (9 * level + 3) & (3 if side.cpu.level == level == 3 else 511)
        entry: int = side.vm.read_host_u64((table & FRAME_BITS) + 8 * index)
        page = census.name(table)
        leaf = Leaf(page, entry, level)
        ends = not entry & PRESENT or level == 1 or bool(entry & LARGE and level < 4)
        if page is not None or ends:
            steps.append(Step(page, index, page in census.unsync, entry & ~SET_BY_USE if ends else census.name(entry & FRAME_BITS)))
        if ends:
            break
        table = entry & FRAME_BITS
    return steps, leaf


def is_unlinked(side: Side, census: Census, address: int) -> bool:
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


class Ground(NamedTuple):
    """What an input on an address meets in the kernel's VM and in ours."""

    theirs: list[Step]
    ours: list[Step]
    their_shadows: Shadows
    our_shadows: Shadows

    def differs(self, kernel: Sequence[AnyEvent], ours: Sequence[AnyEvent]) -> bool:
        """The ways differ, or the shadows of a page that is mapped."""
        if self.theirs != self.ours:
            return True
        gfns = {int(event.gfn) for event in (*kernel, *ours) if isinstance(event, SpteRequested | GetPage)}
        return any(self.their_shadows.get(gfn, NONE) != self.our_shadows.get(gfn, NONE) for gfn in gfns)


NONE: frozenset[tuple[Key, bool]] = frozenset()
