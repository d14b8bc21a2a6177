# SPDX-License-Identifier: GPL-2.0-only
"""Where the memory behind a capture's memslots lies in a VM's user memory, and by which host pages it is backed.

Captures tell the VMM's address of a slot's memory (`hva=`), so that slots may share it; older ones do not, and theirs lies apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shadowmmu.captures.capture import Capture
from shadowmmu.captures.markers import Mark, parse
from shadowmmu.trace.events import Marker

PAGE_SHIFT = 12
LEVEL_BITS = 9


class Backing(NamedTuple):
    """What kind of host pages a slot's memory has."""

    level: int
    hugetlb: bool = False
    """Whole pages of that size for good. Else they are ordinary memory, as far as the host has found pages in a row."""

    @property
    def page_size(self) -> int:
        return 1 << PAGE_SHIFT + LEVEL_BITS * (self.level - 1)

    def room(self, size: int) -> int:
        """Bytes of memory that `size` bytes take: hugetlb gives whole pages."""
        return (size + self.page_size - 1) & -self.page_size if self.hugetlb else size


SMALL = Backing(1)
BACKINGS = {"thp": Backing(2), "huge": Backing(2, hugetlb=True), "giant": Backing(3, hugetlb=True)}
"""By the word of the kit for it; any other is small pages."""
LEAST_UNIT = 2 << 20
"""Memory is laid out by so many bytes: what could be a huge page of the captured host could be one here."""


class UserMemory:
    """The layout: `regions` has the offset of each (slot, size), as a slot keeps its memory while its size stays."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.end = 0
        self.regions: dict[tuple[int, int], int] = {}
        self._backings = dict(_backings(capture))
        marks = list(_slots_made(capture))
        self._last_gfn = {mark["id"]: mark["gpa"] >> PAGE_SHIFT for mark in marks}
        self._lay_out(marks, _areas((mark["hva"], mark["hva"] + self._room(mark)) for mark in marks if "hva" in mark))

    def _lay_out(self, marks: list[Mark], areas: list[tuple[int, int]]) -> None:
        placed: dict[int, int] = {}
        for mark in marks:
            key = mark["id"], mark["size"]
            if key in self.regions:
                continue
            unit = max(LEAST_UNIT, self._backing(mark["id"]).page_size)
            if "hva" not in mark:
                self.regions[key] = self._take(self._room(mark), unit, 0)
                continue
            start, end = next(area for area in areas if area[0] <= mark["hva"] < area[1])
            if start not in placed:
                placed[start] = self._take(end - start, unit, start % unit)
            self.regions[key] = placed[start] + mark["hva"] - start

    def _take(self, size: int, unit: int, behind: int) -> int:
        """Room for `size` bytes, `behind` a multiple of `unit`: the offset."""
        start = (self.end + unit - 1) & -unit
        self.end = start + behind + size
        return start + behind

    def _room(self, mark: Mark) -> int:
        return self._backing(mark["id"]).room(mark["size"])

    def _backing(self, slot: int) -> Backing:
        return self._backings.get(slot, SMALL)

    def huge_pages(self) -> Iterator[tuple[int, int, Backing]]:
        """Parts that are whole huge pages: first offset, size, kind."""
        for (slot, size), start in self.regions.items():
            kind = self._backing(slot)
            first, end = (start + kind.page_size - 1) & -kind.page_size, (start + kind.room(size)) & -kind.page_size
            if kind.hugetlb and first < end:
                yield first, end - first, kind
            elif kind.level > 1:
                rows = self._rows(slot, size)
                yield from ((at, kind.page_size, kind) for at in range(first, end, kind.page_size) if at - start in rows)

    def _rows(self, slot: int, size: int) -> set[int]:
        """Offsets in a slot at which the captured host had a huge page's worth of frames in a row, aligned as one is."""
        page_size = self._backing(slot).page_size
        pages = page_size >> PAGE_SHIFT
        found: set[int] = set()
        for number, gfn, pfn, count in self.capture.frames:
            if number == slot:
                skip = -pfn % pages
                found.update((gfn - self._last_gfn[slot] + at) << PAGE_SHIFT for at in range(skip, count - pages + 1, pages))
        return found


def _backings(capture: Capture) -> Iterator[tuple[int, Backing]]:
    """Those of the slots that the guest began with, and of the VMM's script (`slot ID FLAGS GPA SIZE BACKING`)."""
    for slot in capture.guest.memslots:
        yield slot.id, BACKINGS.get(slot.backing, SMALL)
    for command in (command for script in capture.guest.host_script for command in script):
        word, *arguments = command.split()
        if word == "slot":
            yield int(arguments[0]), BACKINGS.get(arguments[-1], SMALL)


def _slots_made(capture: Capture) -> Iterator[Mark]:
    for event in capture.events:
        mark = parse(event) if isinstance(event, Marker) else None
        if mark and mark.action == "slot" and mark["size"]:
            yield mark


def _areas(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The VMM's memory behind slots: ranges of its addresses, those that overlap as one."""
    areas: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if areas and start < areas[-1][1]:
            areas[-1] = areas[-1][0], max(areas[-1][1], end)
        else:
            areas.append((start, end))
    return areas
