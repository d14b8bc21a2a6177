# SPDX-License-Identifier: GPL-2.0-only
"""The guest's tables as walks have seen them: which table hangs below which, and how far walks came.

A walk tells each entry it read, from the top. An entry has the frame of the table below it; the top table itself is told by the
page that is made for it, or not at all.
"""

from __future__ import annotations

from collections import Counter, deque

from shadowmmu.trace import events as e

PRESENT, WRITE, USER, ACCESSED, DIRTY, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
FRAME = 0x000F_FFFF_FFFF_F000
MOST_TABLES = 200_000
"""Tables, and links between them."""
MOST_NESTED = 8


class _Walk:
    """One walk: its address, the level of its first entry and of its last, and the table it has come to.

    access  what it is for, as an error code
    owed    levels whose entry lacks A, and -1 if the last lacks D, in the order in which they are set
    entries what it read, from the top
    absent  the last entry is not present
    refused no entry may be used so, whatever the mode
    """

    __slots__ = ("absent", "access", "addr", "entries", "last", "leads_on", "owed", "refused", "table", "top")

    def __init__(self, addr: int, access: int) -> None:
        self.addr, self.top, self.last, self.access = addr, 0, 0, access
        self.leads_on = self.absent = self.refused = False
        self.table: tuple[int, int] | None = None
        self.owed: list[int] = []
        self.entries: list[tuple[int, int]] = []

    def settle(self) -> None:
        """Nothing more is to come of it."""
        self.leads_on = self.absent = self.refused = False
        self.owed.clear()

    def index_in_table(self, level: int) -> int:
        """Where in its table the entry of this level lies, bytes: 2 levels have entries of 4 bytes."""
        if self.top == 2:
            return (self.addr >> 12 + 10 * (level - 1) & 1023) * 4
        return (self.addr >> 12 + 9 * (level - 1) & 511) * 8


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
    def newest(self) -> tuple[int, int, list[tuple[int, int]]]:
        """Of the walk begun last: its address, what it is for, and the (level, value) of each entry that it read."""
        walk = self._under_way[-1] if self._under_way else None
        return (0, 0, []) if walk is None else (walk.addr, walk.access, walk.entries)

    @property
    def is_under_way(self) -> bool:
        return bool(self._under_way)

    @property
    def leads_on(self) -> int:
        """Of the walk begun last: the level of its last entry, if that has a table below it; else 0."""
        newest = self._under_way[-1] if self._under_way else None
        return newest.last if newest is not None and newest.leads_on else 0

    def begin(self, event: e.Walk) -> None:
        self._under_way.append(_Walk(int(event.addr), int(event.pferr)))

    def unfinished(self, bits_are_told: bool) -> str:
        """What the walk begun last lacks, if something else follows it now. `bits_are_told`: that A or D is set is in the trace."""
        walk = self._under_way[-1] if self._under_way else None
        if walk is None or not walk.last:
            return ""
        lacks = ""
        if walk.leads_on:
            lacks = f"a walk of {walk.addr:x} ends at a table of level {walk.last} that leads on"
        elif walk.absent:
            lacks = f"a walk of {walk.addr:x} meets an entry of level {walk.last} that is not present, and no error is told"
        elif walk.refused:
            lacks = f"a walk of {walk.addr:x} meets an entry that does not allow the access, and no error is told"
        elif walk.owed and bits_are_told:
            bit = "D" if walk.owed[0] < 0 else f"A of level {walk.owed[0]}"
            lacks = f"a walk of {walk.addr:x} is over, and {bit} was not set in the entry that lacks it"
        walk.settle()
        return lacks

    def failed(self) -> None:
        """The walk begun last ends in an error: nothing more is to come of it."""
        if self._under_way:
            self._under_way[-1].settle()

    def bit_set(self, gpa: int, dirty: bool) -> str:
        """What is wrong with A or D being set in the entry there, if anything is."""
        walk = self._under_way[-1] if self._under_way else None
        if walk is None or not walk.owed or walk.leads_on:
            return ""
        level = walk.owed.pop(0)
        if dirty != (level < 0):
            return f"a walk of {walk.addr:x} sets {'D' if dirty else 'A'} at {gpa:x}, and another entry is first"
        if gpa & 0xFFF != walk.index_in_table(walk.last if dirty else level):
            return f"a walk of {walk.addr:x} sets {'D' if dirty else 'A'} at {gpa:x}, where no entry of it lies"
        return ""

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
        if level == 1 and not walk.top:
            self.end()
            return f"a walk of {walk.addr:x} begins at level 1, which no mode does"
        if level == walk.top or not walk.top:
            walk.table = None
            walk.entries.clear()
            walk.settle()
        walk.top = walk.top or level
        walk.last = level
        walk.entries.append((level, pte))
        walk.leads_on = level > 1 and bool(pte & PRESENT) and not (pte & LARGE and level < 4)
        self._owe(walk, level, pte)
        if walk.leads_on:
            self._link(walk, (level - 1, (pte & FRAME) >> 12))
        return ""

    def _owe(self, walk: _Walk, level: int, pte: int) -> None:
        """What must follow its last entry. A PDPTE of PAE paging has neither A nor rights. Only a user's writes always need W."""
        walk.absent = not pte & PRESENT
        if level == walk.top == 3:
            return
        rights = walk.access & (USER | WRITE) if walk.access & USER else 0
        walk.refused |= rights & ~pte != 0
        if not pte & ACCESSED:
            walk.owed.append(level)
        if not walk.leads_on and walk.access & WRITE and not pte & DIRTY:
            walk.owed.append(-1)

    def _link(self, walk: _Walk, table: tuple[int, int]) -> None:
        if len(self) < MOST_TABLES:
            if walk.table is not None:
                below = self.below.setdefault(walk.table, set())
                self.links += table not in below
                below.add(table)
            self.seen[table] += 1
        walk.table = table
