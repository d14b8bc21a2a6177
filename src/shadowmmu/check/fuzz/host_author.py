# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Invents what the host does in the middle of an episode: memslots, pages that move, rights taken, dirty logs."""

from shadowmmu.check.fuzz.operations import (
    ALIAS,
    ALIASED,
    FRAMES,
    HOLDS_LARGE,
    LARGE_FRAMES,
    MOVE_PAGE,
    MOVED,
    OBSOLETE,
    SLOTS,
    TABLES,
    Kind,
    Op,
)
from shadowmmu.check.fuzz.table_writer import ACCESSES, TableWriter
from shadowmmu.hardware.walk import USER, WRITE


class HostAuthor(TableWriter):
    """Writes what user space and the host do."""

    def slot(self, vcpu: int) -> None:
        """Delete and make again, move, or change the flags of a slot; tables are not away or read-only for long."""
        random = self.random
        slot = random.choice((0, 1, 1, 2) + (ALIAS,) * self.guest.alias)
        first, pages = ALIASED if slot == ALIAS else SLOTS[slot]
        flags = random.choice((0, 0, 0, 0, 1, 1, 2, 2))
        present = self.guest.slots.slots.get(slot)
        at = MOVED if slot == 1 and random.random() < 0.3 else first
        if slot == HOLDS_LARGE and random.random() < 0.3:
            less = random.choice((1, 8, 500))  # pages, at either end: a large page lies partly outside
            at, pages = at + random.choice((0, less)), pages - less
        used: list[Op] = []
        other = present is not None and (present[1:3] != (pages, self.guest.slots.host_of(slot, at)) or bool((flags ^ present[3]) & 1))
        if present is not None and (other or random.random() < 0.4):
            self._add(Kind.SLOT, vcpu, slot, present[0], 0, 0)
            before = len(self.pending)
            self._touch(present[0], present[1], random.below(4))
            used = self.pending[before:]
            if slot and random.random() < 0.3:
                return
        self._add(Kind.SLOT, vcpu, slot, at, pages, flags)
        if used and not self._levels(vcpu):
            self._add(Kind.ACCESS, vcpu, (FRAMES + 3) << 12, 0, 8, 0)  # where there is none, still
        self.pending += reversed(used)  # what was found to be no memory is looked for again
        self._touch(present[0] if present else at, pages, random.below(4))
        if flags & 1:
            self._touch(at, pages, 4, WRITE)
        if slot == 0 and flags & 1:
            self._add(Kind.SLOT, vcpu, slot, first, 0, 0)
            self._add(Kind.SLOT, vcpu, slot, first, pages, 0)

    def swap(self, vcpu: int) -> None:
        """The host moves a page; the next accesses must find it."""
        page, pages = self._used_page(vcpu), self.random.choice((1, 1, 1, 4))
        if page >= LARGE_FRAMES[1] and self.random.random() < 0.7:
            return  # the large page would be none any more
        self._add(Kind.SWAP, vcpu, page, pages)
        self._touch(page, pages, 2)

    def protect(self, vcpu: int) -> None:
        """The host takes its right to write a page away, and gives it back a little later."""
        page = self._used_page(vcpu)
        if page <= TABLES:
            return
        self._add(Kind.PROTECT, vcpu, page, 0)
        self._touch(page, 1, 2)
        self._add(Kind.PROTECT, vcpu, page, 1)
        self._touch(page, 1, 1, WRITE)

    def dirty(self, vcpu: int) -> None:
        """Read a dirty log, write, and read it again; turn logging on where it is off."""
        slot = self.random.choice((*SLOTS, *(ALIAS,) * self.guest.alias))
        present = self.guest.slots.slots.get(slot)
        if present is None or present[3] & 1:
            return
        if not present[3] & 2:
            self._add(Kind.SLOT, vcpu, slot, present[0], present[1], 2)
        for _ in range(2):
            self._add(Kind.DIRTY, vcpu, slot)
            self._touch(present[0], present[1], 3, self.random.choice((WRITE, USER | WRITE)))
            self._touch(present[0], present[1], 1)
        if slot == 1 and self.random.random() < 0.4:  # a log goes on when its slot moves
            for at in (MOVED, SLOTS[1][0]):
                self._add(Kind.SLOT, vcpu, slot, at, present[1], 2)
        self._add(Kind.DIRTY, vcpu, slot)
        if self.random.random() < 0.8:
            self._add(Kind.SLOT, vcpu, slot, present[0], present[1], 0)
            self._touch(present[0], present[1], 3)

    def outside(self, vcpu: int) -> None:
        """A store from outside to an entry on the way of an address in use, then accesses that go that way; perhaps the guest's own."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        (gva, trail), size = self._in_use(vcpu), tlb.mode.entry_size
        if not trail:
            return
        used = random.choice(trail)
        entry = self._entry(tlb.mode.levels, tlb.mode.steps[used.step].level, hostile=0) | 0x21
        self._add(Kind.OUTSIDE, vcpu, used.pa, size, entry)
        beside = [g for g in self.guest.reach[tlb.mode.levels] if g >> 21 == gva >> 21]
        for _ in range(random.between(1, 4)):
            self._add(Kind.ACCESS, random.getrandbits(1), random.choice(beside), random.choice(ACCESSES), 8, 0)
        if random.random() < 0.5:
            self._write_entry(vcpu, used.pa, random.choice((entry, used.entry)))
            self._add(Kind.INVLPG, vcpu, gva)
            self._add(Kind.ACCESS, vcpu, gva, random.choice(ACCESSES), 8, 0)

    def aliases(self, vcpu: int) -> None:
        """One frame mapped by whole blocks of entries, which are mapped ahead of faults, then taken, moved, or a table."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        frame, size = random.choice((random.below(FRAMES), random.randint(1, TABLES))), tlb.mode.entry_size
        for gva in random.sample(self.guest.reach[tlb.mode.levels], 4) if tlb.mode.levels else ():
            trail = self._look(vcpu, gva)
            if not trail or tlb.mode.steps[trail[-1].step].level > 1:
                continue
            for at in range(trail[-1].pa & -8 * size, (trail[-1].pa & -8 * size) + 8 * size, size):
                self._add(Kind.POKE, vcpu, at, size, frame << 12 | 0x67)
            self._add(Kind.INVLPG, vcpu, gva)
            self._add(Kind.ACCESS, vcpu, gva, random.choice((0, USER)), 8, 0)
        if random.random() < 0.6:
            self._add(Kind.SWAP, vcpu, frame, 1)
        self._touch(frame, 1, 3)

    def host(self, vcpu: int) -> None:
        """Fewer shadow pages for a while; a task that wants the CPU in the middle of a sync; the host's tables change, or are
        looked at; a table is no longer shadowed."""
        random = self.random
        which = random.below(5)
        pages = {0: random.choice((64, 64, 72, 80)), 1: random.below(4), 4: random.randint(1, TABLES)}
        number = pages[which] if which in pages else self._used_page(vcpu)
        self._add(Kind.HOST, vcpu, which, number)
        if which == 1:
            self._add(Kind.CR3, vcpu, self.guest.oracle.vcpus[vcpu].cr3)

    def meanwhile(self, vcpu: int) -> None:
        """While a fault is served all pages become obsolete, or the page moves that is about to be mapped; then it is used again."""
        random = self.random
        gva, trail = self._in_use(vcpu)
        gfn = trail[-1].address >> 12 if trail and trail[-1].address else gva >> 12
        event, how = random.choice((OBSOLETE, MOVE_PAGE, MOVE_PAGE)), random.choice(ACCESSES)
        self._add(Kind.HOST, vcpu, 2, gfn)  # or the access would not fault
        self._add(Kind.MEANWHILE, vcpu, gva, how | event << 16, gfn, 0)
        for v in (vcpu, 1 - vcpu):
            self._add(Kind.ACCESS, v, gva, how, 8, 0)

    def zap_all(self, vcpu: int) -> None:
        """Once, or several times before a vCPU looks; the generation has one bit."""
        for _ in range(self.random.choice((1, 1, 2, 3))):
            self._add(Kind.ZAP_ALL, vcpu)
        self._add(Kind.ACCESS, self.random.getrandbits(1), self.random.choice(self.recent), self.random.choice(ACCESSES), 8, 0)
