# SPDX-License-Identifier: GPL-2.0-only
"""All that a CPU may hold without having been asked: the translations that the tables gave when it ran last.

A CPU walks ahead of what it executes (SDM 4.10.2.3, 4.10.3.1), so whatever its tables allow while it runs may be in its
TLB and its paging-structure caches. `Held` notes at each VM entry, for each watched address, the entries on its way from
the root; what is asked to be flushed, and what a fault drops, is held no more. At the next entry the entries of what is
left must still allow as much.

Compiled, since it looks at all watched addresses at every entry.
"""

import cython
from cython.cimports.shadowmmu.hardware.host_memory import HostMemory
from cython.cimports.shadowmmu.hardware.walk import Paging, Step, use_entry


@cython.final
@cython.cclass
class Ways:
    """Of each watched address its way from `root`, as the CPU could go it with one tag."""


@cython.final
@cython.cclass
class Held:
    """What one CPU may hold of the addresses `watched`, page by page."""

    def __init__(self, memory: HostMemory, watched: tuple) -> None:
        if len(watched) > MOST:
            raise ValueError(f"{len(watched)} addresses are watched, no more than {MOST} are looked at")
        self.memory, self.tags = memory, {}
        for gva in watched:
            self.watched[self.count] = gva
            self.count += 1

    def read(self, hpa):
        """One entry."""
        return cython.cast(cython.pointer(u64), self.memory.place(hpa, 8))[0]

    def flush(self) -> None:
        """Nothing of any tag is held."""
        self.tags.clear()

    def drop(self, tag: int, gva: u64) -> None:
        """INVLPG, or a page fault: no page that holds `gva`."""
        ways: Ways = self.tags.get(tag)
        i: cython.int
        if ways is not None:
            for i in range(self.count):
                if not (ways.ways[i].gva ^ gva) >> ways.ways[i].shift:
                    ways.ways[i].depth = 0

    def stale(self, tag: int) -> tuple | None:
        """The first entry that no longer allows what is held of it with `tag`: (address, where it lies, what it was, what it is)."""
        ways: Ways = self.tags.get(tag)
        if ways is None:
            return None
        i: cython.int
        k: cython.int
        for i in range(self.count):
            way: WayPtr = cython.address(ways.ways[i])
            for k in range(way.depth):
                now: u64 = self.read(way.used[k].pa)
                if (now ^ way.used[k].value) & way.used[k].mask:
                    return way.gva, way.used[k].pa, way.used[k].value & way.used[k].mask, now & way.used[k].mask
        return None

    def root(self, tag: int) -> int:
        """Where the ways that are held with `tag` begin; 0: nothing is held."""
        ways: Ways = self.tags.get(tag)
        return 0 if ways is None else ways.root

    def look(self, tag: int, root: u64, mode: Paging, reach: u64, every: cython.bint) -> list:
        """Note the ways from `root` of those watched addresses whose bit is set in `reach`.

        What may be used and was not there at the last look, or with `every` all of it: (address, page's size, its address, rights).
        """
        found: list = []
        ways: Ways = self.tags.get(tag)
        if ways is None:
            ways = Ways()
            self.tags[tag] = ways
        ways.root = root
        i: cython.int
        new: Way
        for i in range(self.count):
            if not reach >> i & 1:
                continue
            self.go(cython.address(new), self.watched[i], root, mode)
            if new.leaf and (every or is_news(cython.address(new), cython.address(ways.ways[i]))):
                found.append((new.gva, new.shift, new.page, new.rights))
            if new.depth:
                ways.ways[i] = new
        return found

    def go(self, way, gva, root, mode):
        """The way of one address, as far as entries are present."""
        way.gva, way.depth, way.leaf, way.shift, way.rights = gva, 0, False, 12, ALL
        table: u64 = root & ADDRESS
        if mode.levels == 3:
            table = self.read(root + (gva >> 27 & 0x18))
            if not table & PRESENT:
                return 0
            note(way, root + (gva >> 27 & 0x18), table, PRESENT | ADDRESS)
            table &= ADDRESS
        step: Step
        for step in mode.steps:
            pa: u64 = table + (gva >> step.shift & step.mask) * 8
            entry: u64 = self.read(pa)
            fault, table, rights, leaf = use_entry(mode, step, entry, way.rights)
            if fault:
                return 0
            way.rights = rights
            note(way, pa, entry, PRESENT | ADDRESS | LARGE)
            if leaf:
                way.leaf, way.shift, way.page = True, step.shift, table
                break
        k: cython.int
        if way.rights & WRITE and way.rights & DIRTY:  # else a store walks again
            for k in range(mode.levels == 3, way.depth):
                way.used[k].mask |= WRITE
        return 0


@cython.cfunc
@cython.exceptval(check=False)
def note(way: WayPtr, pa: u64, entry: u64, mask: u64) -> cython.void:
    way.used[way.depth].pa, way.used[way.depth].value, way.used[way.depth].mask = pa, entry, mask
    way.depth += 1


@cython.cfunc
@cython.exceptval(check=False)
def is_news(new: WayPtr, old: WayPtr) -> cython.bint:
    """The page or its rights differ, or nothing was held."""
    return not old.depth or not old.leaf or new.page != old.page or new.shift != old.shift or new.rights != old.rights
