# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Situations in which the host has a part: pages go, rights go, large pages are logged, while both vCPUs hold what was."""

from shadowmmu.check.fuzz.host_author import HostAuthor
from shadowmmu.check.fuzz.operations import FRAMES, HOLDS_LARGE, LARGE_FRAMES, PAGE, SLOTS, TABLES, Kind
from shadowmmu.check.fuzz.table_writer import ACCESSES
from shadowmmu.hardware.walk import FETCH, USER, WRITE


class HostSituations(HostAuthor):
    """Writes them."""

    def shootdown(self, vcpu: int) -> None:
        """One vCPU holds a translation, the other changes it, perhaps invalidates for itself; the host takes the page."""
        shared = self._shared_leaf(vcpu)
        if shared is None:
            return
        gva, leaf = shared
        how = self.random.choice((0, WRITE, USER, USER | WRITE))
        self._add(Kind.ACCESS, 1 - vcpu, gva, how, 8, 0)
        self._add(Kind.ACCESS, vcpu, gva, how, 8, 0)
        self._change_leaf(1 - vcpu, leaf)
        fate = self.random.random()
        if fate < 0.5:
            self._add(Kind.INVLPG, 1 - vcpu, gva)
        elif fate < 0.75:
            self._add(Kind.CR3, 1 - vcpu, self.guest.oracle.vcpus[1 - vcpu].cr3)
        if fate > 0.75 or self.random.random() < 0.5:
            self._add(Kind.ACCESS, 1 - vcpu, gva, self.random.choice(ACCESSES), 8, 0)
        if self.random.random() < 0.7:
            self._add(Kind.SWAP, vcpu, leaf.address >> 12, 1)
        self._add(Kind.ACCESS, vcpu, gva, how, 8, 0)

    def replaced(self, vcpu: int) -> None:
        """Both read through a clean leaf; one points it elsewhere and writes there; the first page goes; the other reads again."""
        shared = self._shared_leaf(vcpu)
        if shared is None:
            return
        gva, leaf = shared
        user, size = self.random.choice((0, USER)), self.guest.oracle.vcpus[vcpu].mode.entry_size
        self._add(Kind.POKE, vcpu, leaf.pa, size, (leaf.entry | 0x27) & ~0x40)
        for v in (vcpu, 1 - vcpu):
            self._add(Kind.INVLPG, v, gva)
            self._add(Kind.ACCESS, v, gva, user, 8, 0)
        entry = self._entry(self._levels(vcpu), 1, hostile=0) | 0x27
        self._write_entry(1 - vcpu, leaf.pa, entry, make_way=True)
        self._add(Kind.ACCESS, 1 - vcpu, gva, user | WRITE, 8, 0)
        self._add(Kind.SWAP, vcpu, leaf.address >> 12, 1)
        self._add(Kind.ACCESS, vcpu, gva, user, 8, 0)

    def vanished(self, vcpu: int) -> None:
        """A page is read through a clean leaf, which then names no memory or another page; it is written before anybody invalidates."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        (gva, trail), size = self._in_use(vcpu), tlb.mode.entry_size
        if not trail or tlb.mode.steps[trail[-1].step].level > 1:
            return
        user, at = random.choice((0, USER)), trail[-1].pa
        self._add(Kind.POKE, vcpu, at, size, random.below(FRAMES) << 12 | 0x27)
        self._add(Kind.ACCESS, vcpu, gva, user, 8, 0)
        frame = random.choice((FRAMES + 3, FRAMES + 3, 0x80000, random.below(FRAMES)))
        if random.random() < 0.5:
            self._add(Kind.OUTSIDE, vcpu, at, size, frame << 12 | 0x67)
        else:
            self._write_entry(vcpu, at, frame << 12 | 0x67, make_way=True)
        self._add(Kind.ACCESS, vcpu, gva, user | WRITE, 8, 0)
        self._add(Kind.ACCESS, 1 - vcpu, gva, user, 8, 0)

    def twice(self, vcpu: int) -> None:
        """One large page of the host's is mapped at two places: executed at one, read at the other; then a log begins, and ends."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        places = dict[int, int]()  # where an entry of a directory stands -> an address that it is used for
        for g in random.sample(self.guest.reach[tlb.mode.levels], 8) if tlb.mode.levels else ():
            at = next((used.pa for used in self._look(vcpu, g) if self._level(vcpu, used) == 2), None)
            places |= {at: g} if at is not None else {}
        slot = self.guest.slots.slots.get(HOLDS_LARGE)
        if len(places) < 2 or slot is None or slot[3]:
            return
        entry = random.choice(LARGE_FRAMES[1:]) << 12 | 0xE1 | random.choice((2, 6, 6, 4))
        (one, gva), (other, second) = random.sample(tuple(places.items()), 2)
        for at, g, how in ((one, gva, FETCH | entry & USER), (other, second, entry & USER)):
            self._add(Kind.POKE, vcpu, at, tlb.mode.entry_size, entry)
            self._add(Kind.ACCESS, vcpu, g, how, 8, 0)
        for flags in (2, 0):
            self._add(Kind.SLOT, vcpu, HOLDS_LARGE, slot[0], slot[1], flags)
            for g in (gva, second):
                self._add(Kind.ACCESS, random.getrandbits(1), g, random.choice(ACCESSES), 8, 0)

    def borrowed(self, vcpu: int) -> None:
        """A page that the host lets nobody write is read through a leaf; the guest stores to the leaf, through a mapping of its table,
        flushes, and writes the page; then it may."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        (gva, trail), size = self._in_use(vcpu), tlb.mode.entry_size
        frame = random.between(TABLES + 1, FRAMES)
        if not trail or self._level(vcpu, trail[-1]) > 1:
            return
        user, at = random.choice((0, USER)), trail[-1].pa
        rights = random.choice((0x65, 0x65, 0x67, 0x27))
        self._add(Kind.POKE, vcpu, at, size, frame << 12 | rights)
        self._add(Kind.PROTECT, vcpu, frame, 0)
        for v in (vcpu, 1 - vcpu):
            self._add(Kind.ACCESS, v, gva, user, 8, 0)
        self._write_entry(vcpu, at, frame << 12 | random.choice((0x67, 0x67, 0x61, 0x63)), make_way=True)
        if random.random() < 0.5:
            self._add(Kind.INVLPG, vcpu, gva)
        else:
            self._add(Kind.CR3, vcpu, tlb.cr3)
        self._add(Kind.ACCESS, vcpu, gva, user | WRITE, 8, random.getrandbits(64))
        self._add(Kind.PROTECT, vcpu, frame, 1)
        self._add(Kind.ACCESS, vcpu, gva, user | WRITE, 8, random.getrandbits(64))

    def logged(self, vcpu: int) -> None:
        """A large page is used, logged page by page, and large again, as both vCPUs hold what was."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        gva, trail = self._in_use(vcpu)
        at = next((used.pa for used in trail if self._level(vcpu, used) == 2), None)
        frame = random.choice(LARGE_FRAMES[1:])
        slot = self.guest.slots.slots.get(HOLDS_LARGE, (*SLOTS[HOLDS_LARGE], 0, 0))
        if (tlb.mode.levels and at is None) or slot[3] & 1:
            return
        if at is not None:
            self._add(Kind.POKE, vcpu, at, tlb.mode.entry_size, frame << 12 | 0xE0 | random.choice((3, 5, 7, 7, 7)))
        beside = [g for g in self.guest.reach[tlb.mode.levels] if g >> 21 == (gva if at is not None else 0x200000) >> 21]
        for flags in random.choice(((0, 2, 0), (2, 0), (0, 2))):
            self._add(Kind.SLOT, vcpu, HOLDS_LARGE, slot[0], slot[1], flags)
            for v in (vcpu, 1 - vcpu):
                for g in random.sample(beside, min(2, len(beside))):
                    self._add(Kind.ACCESS, v, g, random.choice(ACCESSES), 8, 0)
            if flags and random.random() < 0.7:
                self._add(Kind.DIRTY, vcpu, HOLDS_LARGE)
                self._add(Kind.ACCESS, random.getrandbits(1), random.choice(beside), WRITE | random.choice((0, USER)), 8, 0)
                self._add(Kind.DIRTY, vcpu, HOLDS_LARGE)

    def zeroed(self, vcpu: int) -> None:
        """The host takes a page of zeroes away; both read it, so that it is shared zeroes; one writes; the other looks."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        shared = self._shared_leaf(vcpu)
        frame = random.choice((LARGE_FRAMES[1] + 9, FRAMES - 2, FRAMES - 1))
        gva = frame << 12
        if shared is not None:
            gva, leaf = shared
            self._add(Kind.POKE, vcpu, leaf.pa, tlb.mode.entry_size, frame << 12 | 0x67)
        elif tlb.mode.levels:
            return
        for at in range(0, PAGE, 8) if self._read(frame << 12, 8) else ():
            self._add(Kind.POKE, vcpu, frame << 12 | at, 8, 0)
        self._add(Kind.SWAP, vcpu, frame, 1)
        for v, how in ((vcpu, 0), (1 - vcpu, random.choice((0, USER))), (vcpu, WRITE), (1 - vcpu, 0), (1 - vcpu, WRITE)):
            self._add(Kind.ACCESS, v, gva, how, 8, random.getrandbits(64))
