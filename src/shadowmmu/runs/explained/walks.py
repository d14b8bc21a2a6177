# SPDX-License-Identifier: GPL-2.0-only
"""The guest's tables as walks have seen them: which table hangs below which, and how far walks came.

A walk tells each entry it read, from the top. An entry has the frame of the table below it; the top table itself is told by the
page that is made for it, or not at all.
"""

from __future__ import annotations

from collections import Counter, deque

from shadowmmu.trace import events as e

PRESENT, LARGE = 1, 0x80
FRAME = 0x000F_FFFF_FFFF_F000
MOST_TABLES = 200_000
"""Tables, and links between them."""
MOST_NESTED = 8


class _Walk:
    """One walk: its address, the level of its first entry and of its last, and the table it has come to."""

    __slots__ = ("addr", "last", "leads_on", "table", "top")

    def __init__(self, addr: int) -> None:
        self.addr, self.top, self.last, self.leads_on = addr, 0, 0, False
        self.table: tuple[int, int] | None = None


class Walks:
    """Follows the walks of one vCPU into what its VM has of tables. A walk of L2's tables has walks of L1's within it."""

    def __init__(self) -> None:
        self.below: dict[tuple[int, int], set[tuple[int, int]]] = {}
        """(level, gfn) of a table -> those of tables below it."""
        self.seen: Counter[tuple[int, int]] = Counter()
        self.links = 0
        """Pairs in `below`."""
        self._under_way: deque[_Walk] = deque(maxlen=MOST_NESTED)

    def __len__(self) -> int:
        return len(self.seen) + self.links

    def thin(self) -> None:
        """Begin anew: a part of the tables makes no tree."""
        self.below.clear()
        self.seen.clear()
        self.links = 0

    @property
    def top(self) -> int:
        """Of the walk begun last."""
        return self._under_way[-1].top if self._under_way else 0

    @property
    def is_under_way(self) -> bool:
        return bool(self._under_way)

    @property
    def leads_on(self) -> int:
        """Of the walk begun last: the level of its last entry, if that has a table below it; else 0."""
        newest = self._under_way[-1] if self._under_way else None
        return newest.last if newest is not None and newest.leads_on else 0

    def begin(self, event: e.Walk) -> None:
        self._under_way.append(_Walk(int(event.addr)))

    def end(self) -> None:
        """What comes next continues no walk."""
        self._under_way.clear()

    def step(self, event: e.PagingElement) -> str:
        """What is wrong with it, if anything is. A walk whose A or D bit could not be stored begins anew from the top."""
        level, pte = int(event.level), int(event.pte)
        if not self._under_way:
            return ""
        newest = self._under_way[-1]
        walk = next((one for one in reversed(self._under_way) if level in (one.last - 1, one.top) or not one.top), None)
        if walk is None:
            self.end()
            return f"a walk of {newest.addr:x} reads an entry of level {level} behind one of level {newest.last}"
        while self._under_way[-1] is not walk:
            self._under_way.pop()
        if level == walk.top:
            walk.table = None
        walk.top = walk.top or level
        walk.last = level
        walk.leads_on = level > 1 and bool(pte & PRESENT) and not (pte & LARGE and level < 4)
        if walk.leads_on:
            self._link(walk, (level - 1, (pte & FRAME) >> 12))
        return ""

    def _link(self, walk: _Walk, table: tuple[int, int]) -> None:
        if len(self) < MOST_TABLES:
            if walk.table is not None:
                below = self.below.setdefault(walk.table, set())
                self.links += table not in below
                below.add(table)
            self.seen[table] += 1
        walk.table = table
