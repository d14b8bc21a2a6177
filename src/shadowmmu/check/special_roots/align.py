# SPDX-License-Identifier: GPL-2.0-only
"""Two engines' events upon one input, side by side: equal, or different by a rule."""

from __future__ import annotations

from typing import NamedTuple

from shadowmmu.check.compare.match import CURRENT_ROOT, Matcher
from shadowmmu.check.replayed.inputs import Input
from shadowmmu.check.replayed.replayed_vm import ReplayedVm
from shadowmmu.check.special_roots.dirty_logs import Ahead
from shadowmmu.check.special_roots.fault_path import BothPaths
from shadowmmu.check.special_roots.page_census import Census, Key, key_of
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent


class PageMatcher(Matcher):
    """Compares events of two VMs: tables are equal if they shadow the same."""

    def __init__(self, kernel: Census, special: Census) -> None:
        super().__init__()
        self.kernel, self.special = kernel, special

    def table(self, kernel: int, engine: int) -> bool:
        if kernel == CURRENT_ROOT or engine == CURRENT_ROOT:
            return kernel == engine
        return self.kernel.name(kernel) == self.special.name(engine)


class Parting:
    """Where the two VMs' tables may differ since one of them did what the other had no cause for."""

    def __init__(self) -> None:
        self.pages: set[Key] = set()
        self.entries: set[tuple[Key, int]] = set()
        self.suspects: set[tuple[Key, int]] = set()
        """Entries that one of the two alone has set in the present input; whether they differ is seen when it is over."""
        self.forgotten = ""
        """The kernel has loaded a root anew, by this letter, and forgotten with it what it knew of MMIO; ours has not since."""

    def part(self, event: AnyEvent | None, theirs: Census, ours: Census) -> None:
        """One VM did this, and the other did not, or otherwise."""
        if isinstance(event, e.SetSpte | e.MarkMmioSpte | e.FastPageFault):
            for page in (theirs.name(event.sptep), ours.name(event.sptep)):
                if page is not None:
                    self.suspects.add((page, event.sptep >> 3 & 511))
        elif isinstance(event, e.SyncPage | e.UnsyncPage):
            self.pages.add(key_of(event))

    def has(self, page: Key, index: int) -> bool:
        """An entry may differ."""
        return page in self.pages or (page, index) in self.entries


def parted(theirs: Census, ours: Census, page: Key) -> bool:
    """A page is there, or unsync, in one of the two VMs alone, or was made at another time."""
    alone = (page in theirs.valid) != (page in ours.valid) or (page in theirs.unsync) != (page in ours.unsync)
    return alone or theirs.births.get(page) != ours.births.get(page)


class Taken(NamedTuple):
    """How many events a rule explains, of the kernel's and of ours."""

    kernel: int
    special: int


THEIRS, OURS, BOTH = Taken(1, 0), Taken(0, 1), Taken(1, 1)


class Stream:
    """What one VM did upon an input: events to be compared, and between them others that only the census follows."""

    def __init__(self, census: Census) -> None:
        self.census = census
        self.ahead: list[AnyEvent] = []
        """To be compared, from the next one on."""
        self._quiet: list[list[AnyEvent]] = [[]]
        """Before each of them, and behind the last."""

    def add(self, event: AnyEvent, compared: bool) -> None:
        if compared:
            self.ahead.append(event)
            self._quiet.append([])
        elif self.ahead:
            self._quiet[-1].append(event)
        else:
            self.census.follow(event)

    @property
    def next(self) -> AnyEvent | None:
        return self.ahead[0] if self.ahead else None

    def take(self, count: int) -> list[AnyEvent]:
        """Go on behind so many events."""
        taken, self.ahead = self.ahead[:count], self.ahead[count:]
        for event in taken:
            self.census.follow(event)
            del self._quiet[0]
            for quiet in self._quiet[0]:
                self.census.follow(quiet)
        return taken


class Place:
    """A place in the two streams of one input, with all that a rule may ask."""

    def __init__(
        self, given: Input[object], special: ReplayedVm, censuses: tuple[Census, Census], matcher: PageMatcher, parting: Parting
    ) -> None:
        self.given = given
        self.special = special
        """The VM with roots of special pages, as it is after the input."""
        self.theirs, self.ours = censuses
        """The shadow pages of both, as they were at this place."""
        self.parting = parting
        self.matcher = matcher
        self.kernel = Stream(self.theirs)
        self.engine = Stream(self.ours)
        self.loading = False
        """The kernel is making a root."""
        self.ahead = Ahead()
        """At a dirty log: what it may have of one of the two alone."""
        self.first = 0
        """There, the first gfn of the slot."""
        self.whole: list[bool] = []
        """Of each root that a request of the kernel's frees, in that order: nothing below it was zapped."""
        self.reloading = ""
        """The kernel has freed a root that this VM keeps: by which letter; empty: it has not."""
        self.linked = False
        """This VM's fault has filled an entry of a special page."""
        self.syncing = False
        """The kernel syncs a table that this VM leaves as it is."""
        self.early: list[AnyEvent] = []
        """What this VM did before the kernel does the same."""
        self.unlinked = False
        """The fault's way ended in a special page, and its code says so."""
        self.parted = False
        """The address had another way through the tables, or its page other shadows, in the two VMs."""
        self.marked = False
        """A guest entry had a bit that it did not have for the other."""
        self.zapping = False
        """A page has been zapped upon this input."""
        self.theirs_walk = self.ours_walks = False
        """The guest's tables are walked upon this input."""
        self.recycling = False
        """Pages run out, and the two have others."""
        self.kernel_shuts_down = False
        """It found no root to enter the guest with, as a PDPTE names no memory."""
        self.kernel_keeps_root = False
        """It has zapped a page that is a root in use, and goes when that is dropped."""
        self.keeps_obsolete = False
        """This VM has entered the guest with a root that it had to free."""
        self.kernel_has_root = True
        """Its MMU in use had one before the input."""

    def settle(self, paths: BothPaths | None) -> None:
        """All events are there: what follows from them and from what the input met."""
        theirs, ours = self.kernel.ahead, self.engine.ahead
        self.theirs_walk, self.ours_walks = (any(isinstance(event, e.Walk) for event in events) for events in (theirs, ours))
        recycles = any(isinstance(event, e.ZapOldest) for event in (*theirs, *ours))
        self.recycling = recycles and list(self.theirs.valid) != list(self.ours.valid)
        self.parted = paths is not None and (self.unlinked or paths.differs(theirs, ours))

    def part(self, event: AnyEvent | None) -> None:
        """From now on the two VMs may differ in what this event tells of."""
        self.parting.part(event, self.theirs, self.ours)

    def has_parted(self, event: e.SetSpte) -> bool:
        """The entry's table differs in the two VMs, or its entries may."""
        for census in (self.theirs, self.ours):
            page = census.name(event.sptep)
            if page is not None and (self.parting.has(page, event.sptep >> 3 & 511) or parted(self.theirs, self.ours, page)):
                return True
        return False

    def may_log_alone(self, offset: int, theirs: int, ours: int) -> bool:
        """Each page that only one of two masks of a dirty log has is explained."""
        return self.ahead.explains(self.first + offset, theirs, ours)

    def is_under_special(self, table: int) -> bool:
        """A special page of ours leads to this table."""
        vm = self.special.vm
        view = vm.shadow_page(table)
        parents = () if view is None else (vm.shadow_page(entry) for entry in view.parents)
        return any(parent is not None and parent.special for parent in parents)

    def is_reachable(self, key: Key) -> bool:
        """The loaded root of ours leads to this page."""
        vm, root = self.special.vm, self.special.vcpu.root
        todo, seen = [self.ours.valid[key]], set[int]()
        while todo:
            table = todo.pop()
            if table == root:
                return True
            view = None if table in seen else vm.shadow_page(table)
            seen.add(table)
            todo += [] if view is None else [entry & ~0xFFF for entry in view.parents]
        return False

    @property
    def k(self) -> AnyEvent | None:
        """The kernel's event here."""
        return self.kernel.next

    @property
    def s(self) -> AnyEvent | None:
        """Ours."""
        return self.engine.next

    def differing(self) -> list[str]:
        """Fields in which the two events differ; ["event"] if they are not of a kind."""
        if self.k is None or self.s is None:
            return ["event"]
        return self.matcher.differences(self.k, self.s)

    def take(self, taken: Taken) -> None:
        """Go on behind these events; both VMs' pages follow."""
        theirs, ours = self.kernel.take(taken.kernel), self.engine.take(taken.special)
        self.zapping = self.zapping or any(isinstance(event, e.PrepareZapPage) for event in (*theirs, *ours))
        for event in theirs:
            self.loading = isinstance(event, e.MmuLoad) or (self.loading and not isinstance(event, e.LoadPgd))
            self.reloading = "" if isinstance(event, e.LoadPgd) else self.reloading
            if isinstance(event, e.FreeRoots) and event.roots & 1:
                del self.whole[:1]
