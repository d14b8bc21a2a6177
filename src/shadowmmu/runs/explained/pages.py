# SPDX-License-Identifier: GPL-2.0-only
"""The shadow pages of a VM as its trace tells of them, and what in the trace contradicts itself.

A trace that begins with its VM tells of every page. Of one that begins later a page is only known once it was met, and after a gap
nothing is known: what could be so is never called an anomaly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgspec

from shadowmmu.border.limits import KINDS
from shadowmmu.engine.arena.role import Role
from shadowmmu.runs.explained.commonest import keep_commonest
from shadowmmu.trace import events as e
from shadowmmu.trace.layouts import describe

INVALID, DIRECT, NARROW = int(Role.INVALID), int(Role.DIRECT), int(Role.HAS_4_BYTE_GPTE)
NO_GPTES = DIRECT | int(Role.PASSTHROUGH)
"""Pages that shadow no table (sp_has_gptes), and protect none."""
WRITABLE = 2
REGION = 9
"""Shift from a gfn to the 2 MiB that it lies in."""
MOST_BELOW = 4096
"""Pages that one large entry is held against."""
MOST_MADE = 100_000
"""Pages of which is told how often they were made, the most frequent."""
MOST_GONE = 200_000
"""Pages that were zapped and are remembered: a new one is made in the place of the oldest."""
MOST_MARKS = 10_000
Key = tuple[int, int]


class Page(msgspec.Struct, gc=False):
    """A page that is there. `born`: the event that made it; 0: before the trace."""

    gfn: int
    role: int
    gen: int
    unsync: bool
    born: int
    told: int = 0
    """The event that told its generation."""
    alike: int = 1
    """Pages of this gfn and of roles that the trace's text shows alike."""


class Pages:
    """Follows page events; `found` is called with the number of an event and a sentence for each contradiction."""

    def __init__(self, found: Callable[[int, str], None]) -> None:
        self.found = found
        self.complete = False
        """The VM was made in the trace, and nothing was lost since."""
        self.exact = False
        """Roles are told whole: no two pages that are there look alike."""
        self.there: dict[Key, Page] = {}
        self.by_region: dict[int, set[Key]] = {}
        self.gone: dict[Key, int] = {}
        """The event that zapped a page; negative: of one that had not been met before, which may have had a twin."""
        self.held: Counter[Key] = Counter()
        """Pages that were zapped while a root slot held them."""
        self.made: Counter[Key] = Counter()
        self.roles: Counter[int] = Counter()
        self.marks: dict[int, int] = {}
        """Rights of the MMIO marks that were told, by gfn: where one stands is a hash in most texts."""
        self.early = False
        """Some of its pages were taken for another VM's."""
        self.zaps = self.unsyncs = self.twice = 0
        self.swept = -1
        """The event that made all pages obsolete."""
        self.gen: int | None = None
        """The present generation, if a page has told it since all were made obsolete."""
        self.sweeping = False
        """They are being zapped since."""
        self.tdp = False
        """The TDP MMU has pages, too: of its roots the trace does not tell the end."""
        self.last_zaps = self.last_let_go = 0
        """Zaps since anything else became of a page, and how many of them let a page go that was zapped before."""

    def __len__(self) -> int:
        return len(self.there) + len(self.gone) + len(self.held) + len(self.made) + len(self.roles)

    def thin(self) -> None:
        self.forget()
        keep_commonest(self.made, KINDS)
        keep_commonest(self.roles, KINDS)

    def forget(self) -> None:
        """Something is missing in the trace."""
        self.complete = False
        self.there.clear()
        self.by_region.clear()
        self.gone.clear()
        self.held.clear()
        self.marks.clear()
        self.gen, self.sweeping = None, False

    # --- events

    def got(self, number: int, event: e.GetPage) -> None:
        role = int(event.role) & ~INVALID
        key = (int(event.gfn), role)
        self.last_zaps = self.last_let_go = 0
        self.roles[role] += 1
        self._check_role(number, event)
        if not role & DIRECT:
            self._check_generation(number, event)
        page = self.there.get(key)
        if event.created:
            keep_commonest(self.made, MOST_MADE)
            self.made[key] += 1
            if page is None:
                self._add(Page(int(event.gfn), role, int(event.mmu_valid_gen), False, number, number))
            else:
                self._made_again(number, key, page, event)
        elif page is None:
            died = self.gone.get(key, 0)
            if died > 0:
                self._say(number, f"page {_name(key)} is taken for existing, and event {died} zapped it")
            elif self.complete:
                self._say(number, f"page {_name(key)} is taken for existing, and was never seen before")
            self._add(_before(number, event))

    def _made_again(self, number: int, key: Key, page: Page, event: e.GetPage) -> None:
        page.alike += 1
        if not self.exact:
            self.twice += not key[1] & DIRECT
        elif self._tells_all_of(key[1]) and (self.zaps or self.complete) and page.gen == event.mmu_valid_gen and page.told > self.swept:
            self._say(number, f"page {_name(key)} is made while it is still there, made by event {page.born}: its zap is missing")
        page.born, page.told, page.gen = number, number, int(event.mmu_valid_gen)

    def went_unsync(self, number: int, event: e.UnsyncPage) -> None:
        page = self._known(number, event, "goes unsync")
        self.unsyncs += 1
        if int(event.role) & 15 != 1:
            self._say(number, f"page {_name((page.gfn, page.role))} goes unsync, and only tables of level 1 may")
        if event.unsync:
            self._say(number, f"page {_name((page.gfn, page.role))} goes unsync, and is so already")
        page.unsync = True

    def was_synced(self, number: int, event: e.SyncPage) -> None:
        page = self._known(number, event, "is synced")
        if not event.unsync or (page.born and page.alike == 1 and self.unsyncs and not page.unsync):
            self._say(number, f"page {_name((page.gfn, page.role))} is synced, and is not unsync")
        page.unsync = False

    def was_zapped(self, number: int, event: e.PrepareZapPage) -> None:
        self.zaps += 1
        self.last_zaps += 1
        key = (int(event.gfn), int(event.role) & ~INVALID)
        if event.role & INVALID:
            self.last_let_go += 1
            self._let_go(number, key)
            return
        self.held[key] += int(event.root_count) > 0
        page = self.there.get(key)
        if page is not None and page.alike > 1:
            page.alike -= 1
            return
        if page is not None:
            self._drop(key)
            if page.unsync and not event.unsync and page.born and self.unsyncs:
                self._say(number, f"page {_name(key)} is zapped as one in sync, and event after {page.born} made it unsync")
        else:
            self._unknown_zap(number, key)
        if len(self.gone) >= MOST_GONE:
            self.gone.pop(next(iter(self.gone)))
        self.gone.pop(key, None)
        self.gone[key] = number if self.exact or (page is not None and not self.early) else -number

    def _let_go(self, number: int, key: Key) -> None:
        """A page that was zapped while root slots held it."""
        if self.held[key]:
            self.held[key] -= 1
        elif self.complete:
            self._say(number, f"page {_name(key)} is let go as invalid, and no event has zapped it before")

    def _unknown_zap(self, number: int, key: Key) -> None:
        died = self.gone.get(key, 0)
        if died > 0:
            self._say(number, f"page {_name(key)} is zapped again, as event {died} did, and was not made between")
        elif self.complete:
            self._say(number, f"page {_name(key)} is zapped, and was never seen before")

    def zapped_all(self, number: int) -> None:
        """A new generation: pages of the old one stay until they are zapped, and count for nothing."""
        self.sweep_is_over(number)
        self.swept, self.sweeping, self.gen = number, True, None

    def sweep_is_over(self, number: int) -> None:
        """Whoever zapped all does something else: no page of the old generation is left."""
        if not self.sweeping:
            return
        self.sweeping = False
        for page in [page for page in self.there.values() if page.told <= self.swept and self._tells_all_of(page.role)]:
            self._say(number, f"all pages were zapped by event {self.swept}, and the zap of page {_name((page.gfn, page.role))} is missing")
            self._drop((page.gfn, page.role))

    def end(self, number: int) -> None:
        """The VM is closed: every page was zapped, and let go if a root slot held it."""
        if self.early:
            return
        for page in self.there.values():
            if self._tells_all_of(page.role):
                self._say(number, f"the VM is over, and the zap of page {_name((page.gfn, page.role))} is missing")
        for key, count in self.held.items():
            if count and self._tells_all_of(key[1]):
                self._say(number, f"the VM is over, and page {_name(key)} was not let go")
        self.forget()

    @property
    def seem_over(self) -> bool:
        """The trace ends with zaps of so many pages, roots among them, that all went."""
        return self.last_let_go > 0 and self.last_zaps > 2 and self.last_zaps >= len(self.there)

    def _tells_all_of(self, role: int) -> bool:
        """Each page of this role is told when it comes and when it goes."""
        return not self.early and (not role & DIRECT or (self.complete and not self.tdp))

    def marked(self, event: e.MarkMmioSpte) -> None:
        if len(self.marks) >= MOST_MARKS:
            self.marks.clear()
        self.marks[int(event.gfn)] = int(event.access)

    def leaf(self, number: int, event: e.SetSpte) -> None:
        """A writable entry over a table that is shadowed, and in sync, would let the guest change it unseen.

        Linux does make one where a mark of MMIO with W stood: docs/kernel-quirks.md.
        """
        self.last_zaps = self.last_let_go = 0
        mark = self.marks.get(int(event.gfn), 0)
        if not event.spte & WRITABLE or mark & WRITABLE or not self.by_region or not 1 <= event.level <= 3:
            return
        for page in islice(self._below(int(event.gfn), int(event.level)), MOST_BELOW):
            known = page.born and page.alike == 1 and page.told > self.swept and not page.role & NO_GPTES and not page.role >> 24
            if known and not page.unsync and (self.unsyncs or self.complete):
                what = f"page {_name((page.gfn, page.role))}, made by event {page.born}, shadows it and is in sync"
                self._say(number, f"gfn {int(event.gfn):x} is mapped writable at level {event.level}, and {what}")
                return

    def _below(self, gfn: int, level: int) -> Iterator[Page]:
        """Pages that shadow what an entry of this level maps."""
        shift = 9 * (level - 1)
        first = gfn >> shift << shift >> REGION
        for region in range(first, first + max(1, 1 << shift >> REGION)):
            for key in self.by_region.get(region, ()):
                if key[0] >> shift == gfn >> shift:
                    yield self.there[key]

    # --- what is there

    def _known(self, number: int, event: Any, what: str) -> Page:
        """The page; one that was not known is from here on."""
        role = int(event.role) & ~INVALID
        key = (int(event.gfn), role)
        page = self.there.get(key)
        if page is not None:
            return page
        died = self.gone.get(key, 0)
        if died > 0 and not event.role & INVALID:
            if what != "is synced":  # a page that is zapped unlinks its unsync mark last
                self._say(number, f"page {_name(key)} {what}, and event {died} zapped it")
            return _before(number, event)
        if self.complete and not event.role & INVALID:
            self._say(number, f"page {_name(key)} {what}, and was never seen before")
        page = _before(number, event)
        self._add(page)
        return page

    def _add(self, page: Page) -> None:
        key = (page.gfn, page.role)
        self.there[key] = page
        self.gone.pop(key, None)
        self.by_region.setdefault(page.gfn >> REGION, set()).add(key)

    def _drop(self, key: Key) -> None:
        del self.there[key]
        keys = self.by_region[key[0] >> REGION]
        keys.discard(key)
        if not keys:
            del self.by_region[key[0] >> REGION]

    def _check_generation(self, number: int, event: e.GetPage) -> None:
        """A page that is taken is of the present generation, and only a zap of all pages begins another."""
        gen = int(event.mmu_valid_gen)
        if self.gen is not None and gen != self.gen and (self.complete or self.swept >= 0):
            self._say(number, f"a page of generation {gen:x} behind those of {self.gen:x}: kvm_mmu_zap_all_fast is missing")
        self.gen = gen

    def _check_role(self, number: int, event: e.GetPage) -> None:
        role = int(event.role)
        level, quadrant = role & 15, role >> 5 & 3
        wrong = ""
        if not 1 <= level <= 5:
            wrong = f"level {level}"
        elif quadrant and not role & NARROW and not role & DIRECT:
            wrong = f"quadrant {quadrant} of a table of 8-byte entries"
        elif level == 1 and quadrant > 1 and not role & DIRECT:
            wrong = f"quadrant {quadrant} of a level-1 table"
        if wrong:
            self._say(number, f"page {_name((int(event.gfn), role))}: no mode gives such a role, {wrong}")

    def _say(self, number: int, what: str) -> None:
        self.found(number, what)


def _before(number: int, event: Any) -> Page:
    """A page that was there before the trace told of it."""
    return Page(int(event.gfn), int(event.role) & ~INVALID, int(event.mmu_valid_gen), bool(event.unsync), 0, number)


def _name(key: Key) -> str:
    return f"gfn {key[0]:x} {describe(key[1])}"
