# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Invents what a guest does with memory and its tables: accesses, stores to tables, INVLPG, races of two vCPUs."""

from shadowmmu.check.fuzz.host_operations import HostOperations
from shadowmmu.check.fuzz.l2_author import L2Author
from shadowmmu.check.fuzz.operations import DONE_AGAIN, IMPLICIT, PAGE, TABLES, WRITES_TABLES, Kind, Setup
from shadowmmu.check.fuzz.table_writer import ACCESSES
from shadowmmu.hardware.walk import USER, WRITE

AGAIN = (0,) * 14 + (DONE_AGAIN, DONE_AGAIN | WRITES_TABLES)
"""What most accesses would have emulated, and some would do again."""


class MemoryAuthor(L2Author):
    """Writes it. Each method appends operations of one kind to `pending`."""

    def __init__(self, setup: Setup, guest: HostOperations) -> None:
        super().__init__(setup, guest)
        self.faults = [0, 0]  # for each vCPU: guest faults less successes of late

    def access(self, vcpu: int) -> None:
        """A load, store or fetch at a watched address; blind stores do not go into tables."""
        size = 1 << self.random.below(4)
        gva, how = self._gva(self._levels(vcpu)), self._how()
        if self.random.random() < 0.5:
            gva = self.random.choice(self.recent)
        self.recent[self.random.below(len(self.recent))] = gva
        if how & WRITE and self._levels(vcpu) and self._maps_table(vcpu, gva):
            how &= ~WRITE
        how |= self.random.choice(AGAIN)
        self._add(Kind.ACCESS, vcpu, gva + self.random.below(PAGE // size) * size, how, size, self.random.getrandbits(8 * size))

    def table_store(self, vcpu: int) -> None:
        """A store into a table, through a watched address that maps one if there is any, then perhaps INVLPG."""
        random, paged = self.random, self._levels(vcpu)
        levels = paged or random.choice((2, 3, 4))
        gva = table = 0
        for _ in range(8 if paged else 0):
            gva = self._gva(paged)
            table = self._maps_table(vcpu, gva, WRITE)
            if table:
                break
        found = table or not paged
        table = table or random.randint(1, TABLES)
        target, level = self._table_slot(levels, table)
        size = 4 if levels == 2 else random.choice((8, 8, 8, 4))
        value = self._entry(levels, level) if random.random() < 0.9 else 0
        if not found:
            size = random.choice((size, size, size, 1, 2, 3, 5))
            target += random.choice((0, 0, 0, 0, 1, 2, 4))
            self._add(Kind.POKE, vcpu, target, size, value & (1 << 8 * size) - 1)
            return
        at, how = (gva if paged else table * PAGE) | target & 0xFFF, WRITE | (USER if random.random() < 0.3 else 0)
        if random.random() < 0.1:
            size = random.choice((1, 2, 3, 5, 6, 7, size))
            at = min(at + random.choice((0, 0, 1, 2, 3)), (at | 0xFFF) + 1 - size)
            self._add(Kind.EMULATED, vcpu, at, how, size, value & (1 << 8 * size) - 1)
        else:
            how |= random.choice((0, 0, 0, DONE_AGAIN))
            self._add(Kind.ACCESS, vcpu, at, how, size, value & (1 << 8 * size) - 1)
        if paged and random.random() < 0.4:
            self._add(Kind.INVLPG, vcpu, self._gva(paged))
        if paged and random.random() < 0.5:
            self._add(Kind.ACCESS, random.getrandbits(1), self._gva(min(paged, 3)), random.choice(ACCESSES), 8, 0)

    def edit(self, vcpu: int) -> None:
        """Change an entry on the path of an address in use, invalidate (mostly), and look again."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        (gva, trail), size = self._in_use(vcpu), tlb.mode.entry_size
        if not trail:
            return
        used = trail[-1] if random.random() < 0.7 else random.choice(trail)
        entry = used.entry
        if random.random() < 0.5:
            entry = self._entry(tlb.mode.levels, tlb.mode.steps[used.step].level, hostile=0.3)
        else:
            bits = (1, 2, 2, 4, 4, 0x20, 0x40) + ((1 << 63,) if size == 8 and tlb.mode.nx else ())
            entry ^= random.choice(bits)
        self._write_entry(vcpu, used.pa, entry)
        fate = random.random()
        if fate < 0.6:
            self._add(Kind.INVLPG, vcpu, gva | random.getrandbits(12))
        elif fate < 0.75:
            self._add(Kind.CR3, vcpu, tlb.cr3)
        self._add(Kind.ACCESS, vcpu if random.random() < 0.7 else 1 - vcpu, gva, random.choice(ACCESSES), 8, random.getrandbits(64))

    def build(self, vcpu: int) -> None:
        """Make whole paths to some watched addresses, by emulated stores to guest-physical addresses, and load CR3."""
        tlb = self.guest.oracle.vcpus[vcpu]
        self.faults[vcpu] = 0
        for _ in range(3 if tlb.mode.levels else 0):
            self._path(vcpu, tlb.cr3, self._gva(tlb.mode.levels), tlb.mode.levels)
        if tlb.mode.levels:
            self._add(Kind.CR3, vcpu, tlb.cr3)

    def emulated(self, vcpu: int) -> None:
        """An instruction that the machine emulates, at an address in use or any other."""
        self._emulated(vcpu, self.random.choice(self.recent) if self.random.random() < 0.5 else self._gva(self._levels(vcpu)))

    def _emulated(self, vcpu: int, gva: int) -> None:
        """Of any size and alignment."""
        size = self.random.choice((1, 2, 3, 4, 5, 8, 8, 16))
        how = self._how() | (IMPLICIT if self.random.random() < 0.2 else 0)
        at = gva + self.random.below(PAGE - size + 1)
        if size == 4 and at & 7 > 4:
            at &= ~7  # the MMU takes four bytes for half of an entry of eight, wherever they begin
        self._add(Kind.EMULATED, vcpu, at, how, size, self.random.getrandbits(8 * min(size, 7)))

    def invlpg(self, vcpu: int) -> None:
        gva = self.random.choice(self.recent) if self.random.random() < 0.6 else self._gva(self._levels(vcpu))
        self._add(Kind.INVLPG, vcpu, gva | self.random.getrandbits(12))

    def race(self, vcpu: int) -> None:
        """The other vCPU stores into an entry on the way of an access while its fault is served."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        gva = self._gva(self._levels(vcpu))
        trail = self._look(vcpu, gva) if tlb.mode.levels and gva in self.guest.reach[tlb.mode.levels] else []
        if not trail:
            return
        used, size = random.choice((trail[-1], random.choice(trail))), tlb.mode.entry_size
        entry = self._entry(tlb.mode.levels, tlb.mode.steps[used.step].level, hostile=0.3)
        if random.random() < 0.3:
            entry = used.entry ^ random.choice((1, 2, 4))
        if random.random() < 0.5:
            self._add(Kind.ZAP_ALL, vcpu)  # no table is protected yet, so that the store need not wait
        else:
            self._add(Kind.INVLPG, vcpu, gva)
        self._add(Kind.RACE, vcpu, gva, random.choice(ACCESSES) | random.getrandbits(1) << 12 | size << 16, used.pa, entry)
        self._add(Kind.ACCESS, random.getrandbits(1), gva, random.choice(ACCESSES), 8, 0)
