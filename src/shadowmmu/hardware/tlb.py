# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""TLB and paging-structure caches that keep everything the architecture lets them keep.

Entries stay until an invalidation that the manuals require (SDM 4.10.4, APM 5.5), so a forgotten flush shows as a
stale translation. Where the manuals leave a choice the caches keep more: INVLPG drops paging-structure entries only
on the path of its address (as INVVPID and, with EFER.TCE, AMD's INVLPG do). Eviction is always allowed: a seeded
`Random` may do some, which finds the bugs that retention hides.

A *tag* is what the CPU compares besides the address: ASID or VPID, and PCID, in one integer.
"""

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from shadowmmu.hardware.host_memory import HostMemory
from shadowmmu.hardware.walk import ADDRESS, ALL, GLOBAL, LARGE, PRESENT, WRITE, Paging, TrailEntry, Translation

Pages = dict[int, Translation]
Tables = dict[int, tuple[int, int]]


class Source(NamedTuple):
    """An entry that something cached was made of: where it lies, and what of it has to stay as long as that is cached."""

    pa: int
    mask: int
    value: int


def source(pa: int, entry: int, rights: int) -> Source:
    """Of an entry through which `rights` were had: present, where it leads, and W if it was used. What may be executed, or
    is the user's, the guest takes away itself, and flushes itself (Linux changes such an entry in place: mmu_spte_update)."""
    mask = PRESENT | ADDRESS | LARGE | rights & WRITE
    return Source(pa, mask, entry & mask)


class Tlb:
    """The caches of one logical processor."""

    def __init__(self, random: Random | None = None) -> None:
        self.random = random
        self._pages: dict[int, Pages] = {}  # tag -> gva >> shift, shift -> page
        self._tables: dict[int, Tables] = {}  # tag -> gva >> shift, shift -> (table below, rights)
        self._global: Pages = {}  # pages with G: of every tag (SDM 4.10.2.4)
        self._shifts: tuple[int, ...] = (12,)  # page sizes ever filled
        self.sources: dict[tuple[str, int, int], Sequence[Source]] = {}  # what each was made of, when it was filled last

    def page(self, tag: int, gva: int) -> Translation | None:
        """The cached translation of `gva`. Of several sizes, any may be used (SDM 4.10.2.3): the smallest here."""
        pages = self._pages.get(tag)
        for shift in self._shifts:
            key = gva >> shift << 6 | shift
            if pages is not None and key in pages:
                return pages[key]
            if key in self._global:
                return self._global[key]
        return None

    def resume(self, tag: int, gva: int, mode: Paging) -> tuple[int, int, int] | None:
        """Where a walk of `gva` may start from a paging-structure cache: (step, table, rights), lowest first."""
        tables = self._tables.get(tag)
        if tables:
            for step in range(len(mode.steps) - 2, -1, -1):
                shift = mode.steps[step].shift
                found = tables.get(gva >> shift << 6 | shift)
                if found is not None:
                    return step + 1, found[0], found[1]
        return None

    def fill(self, tag: int, gva: int, mode: Paging, page: Translation, trail: list[TrailEntry]) -> None:
        """Remember a successful walk: its leaf and the tables above (their A bits are set: SDM 4.10.2.2, 4.10.3.1)."""
        if page.shift not in self._shifts:
            self._shifts = tuple(sorted((*self._shifts, page.shift)))
        pages = self._global if page.rights & GLOBAL else self._pages.setdefault(tag, {})
        pages[gva >> page.shift << 6 | page.shift] = page
        tables = self._tables.setdefault(tag, {})
        for used in trail[:-1]:
            shift = mode.steps[used.step].shift
            tables[gva >> shift << 6 | shift] = used.address, used.rights & ALL
        if self.random is not None and self.random.random() < 1 / 32:
            (self._pages if self.random.random() < 0.5 else self._tables).pop(tag, None)

    def remember(self, tag: int, gva: int, mode: Paging, page: Translation, trail: list[TrailEntry], sources: Sequence[Source]) -> None:
        """What `fill` was given was made of `sources`: the entries of `trail`, perhaps after one above it."""
        kind = ("global", 0) if page.rights & GLOBAL else ("page", tag)
        self.sources[(*kind, gva >> page.shift << 6 | page.shift)] = sources
        above = len(sources) - len(trail)
        for number, used in enumerate(trail[:-1]):
            shift = mode.steps[used.step].shift
            self.sources["table", tag, gva >> shift << 6 | shift] = sources[: above + number + 1]

    def changed(self, tag: int, memory: HostMemory) -> Iterator[tuple[int, str, Source]]:
        """What is cached, serves `tag`, and is more than its entries in `memory` now allow: address, kind, the entry."""
        caches = ("page", tag, self._pages.get(tag, {})), ("table", tag, self._tables.get(tag, {})), ("global", 0, self._global)
        for kind, of, cached in caches:
            for key in cached:
                for made_of in self.sources.get((kind, of, key), ()):
                    pa, mask, value = made_of
                    if (memory.read(pa, 8) ^ value) & mask:
                        yield key >> 6 << (key & 63), kind, made_of

    def invlpg(self, tag: int, gva: int, mode: Paging) -> None:
        """INVLPG, INVLPGA, INVVPID of one address; also what a #PF does (SDM 4.10.4.1)."""
        pages, tables = self._pages.get(tag, {}), self._tables.get(tag, {})
        for shift in self._shifts:
            key = gva >> shift << 6 | shift
            pages.pop(key, None)
            self._global.pop(key, None)
        for step in mode.steps[:-1]:
            tables.pop(gva >> step.shift << 6 | step.shift, None)

    def load_cr3(self, tag: int) -> None:
        """MOV CR3 without bit 63: all of the tag but global pages."""
        self._pages.pop(tag, None)
        self._tables.pop(tag, None)

    def flush_all(self) -> None:
        """Everything of every tag: a new ASID, TLB_CONTROL, INVVPID of all contexts, a change of CR4.PGE."""
        self._pages.clear()
        self._tables.clear()
        self._global.clear()
