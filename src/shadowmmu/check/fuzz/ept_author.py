# SPDX-License-Identifier: GPL-2.0-only
"""Invents the operations of an episode on EPT."""

from itertools import accumulate

from shadowmmu.check.fuzz.draw import Draw
from shadowmmu.check.fuzz.ept_cpu import AD, OWN, REACHED
from shadowmmu.check.fuzz.ept_guest import EptGuest
from shadowmmu.check.fuzz.operations import FRAMES, LARGE_FRAMES, PAGE, SLOTS, TABLE_FRAMES, TABLES, Kind, Op, Setup
from shadowmmu.hardware.walk import FETCH, WRITE

ROOTS = 4
INDICES = 0, 1, 2, 3, 7, 511
RIGHTS = (7,) * 30 + (3, 3, 5, 5, 1, 1, 4, 4, 0, 2, 6)


class EptAuthor:
    """Writes an episode: first L1's tables, then what is done with them."""

    def __init__(self, setup: Setup, guest: EptGuest) -> None:
        self.random = Draw(f"author {setup.seed}")
        self.guest, self.pending = guest, list[Op]()
        self.recent = [REACHED[0]] * 4
        weights = {
            self.use: 40.0,
            self.run: 3.0,
            self.edit: 6.0,
            self.redirected: 8.0,
            self.large: 3.0,
            self.changed: 4.0,
            self.dirty: 1.5,
            self.swap: 1.0,
            self.protect: 0.5,
            self.zap_all: 0.5,
            self.host: 0.8,
        }
        weights = {what: weight * (1 if what == self.use else self.random.choice((0.1, 0.5, 1, 1, 4))) for what, weight in weights.items()}
        self.choices, self.weights = tuple(weights), tuple(accumulate(weights.values()))
        for table in range(1, 4 * guest.levels + 1):
            for index in INDICES:
                self._add(Kind.POKE, 0, table * PAGE + 8 * index, 8, self._entry(self._level(table)))
        for vcpu in (0, 1):
            self.run(vcpu)

    def next(self) -> Op:
        while not self.pending:
            self.random.weighted(self.choices, self.weights)(self.random.getrandbits(1))
        return self.pending.pop(0)

    def learn(self, op: Op, outcome: str) -> None:
        """L1 runs its L2 again when it has had a look at a fault, sometimes another; an L1 that was left alone as well."""
        if op.kind == Kind.ACCESS and "injected" in outcome and self.random.random() < 0.2:
            self._path(op.vcpu, op.a)
        if self.guest.cpus[op.vcpu].seen is None and not self.pending and self.random.random() < 0.6:
            self._add(Kind.EPT_RUN, op.vcpu, self.guest.cpus[op.vcpu].eptp or self._eptp())

    # --- kinds of operations; each appends to `pending`

    def use(self, vcpu: int) -> None:
        gpa = self.random.choice(self.recent) if self.random.random() < 0.5 else self._somewhere(vcpu)
        self.recent[self.random.below(len(self.recent))] = gpa
        self._use(vcpu, gpa)

    def run(self, vcpu: int) -> None:
        """The same tables again, or others, or the same otherwise."""
        eptp = self.guest.cpus[vcpu].eptp
        again = eptp if eptp and self.random.random() < 0.5 else self._eptp()
        self._add(Kind.EPT_RUN, vcpu, again ^ (AD if self.random.random() < 0.2 else 0))

    def edit(self, vcpu: int) -> None:
        table = self.random.randint(1, 4 * self.guest.levels)
        gpa = table * PAGE + 8 * self.random.choice(INDICES)
        self._store(vcpu, gpa, self._entry(self._level(table)))
        self._use(vcpu, self.random.choice(self.recent))

    def redirected(self, vcpu: int) -> None:
        """An entry on the way of an address in use becomes another, or loses rights, then both use it, or L1 runs its L2 again."""
        way = self._way(vcpu, gpa := self.random.choice(self.recent))
        if not way:
            return
        level, at, was = self.random.choice(way)
        entry = self._entry(level) if self.random.random() < 0.5 else was ^ self.random.choice((1, 2, 2, 4, 4, 0x100, 0x200))
        self._use(vcpu, gpa)
        self._store(self.random.getrandbits(1), at, entry)
        if self.random.random() < 0.4:
            self._add(Kind.EPT_RUN, vcpu, self.guest.cpus[vcpu].eptp)
        for v in (vcpu, 1 - vcpu, vcpu):
            self._use(v, gpa)

    def large(self, vcpu: int) -> None:
        """A large page, or a table in it, where the other has been."""
        gpa = self.random.choice(self.recent)
        at = next((at for level, at, _ in self._way(vcpu, gpa) if level == 2), None)
        if at is None:
            return
        table = self.random.choice(TABLE_FRAMES)
        self._add(Kind.POKE, vcpu, table << 12 | (gpa >> 12 & 511) * 8, 8, self._entry(1))
        for entry in ((table & -512) << 12 | 0x3B7, table << 12 | 0x307, self.random.choice(LARGE_FRAMES) << 12 | 0x3B0 | 1):
            self._add(Kind.POKE, vcpu, at, 8, entry)
            for _ in range(self.random.between(1, 3)):
                self._use(self.random.getrandbits(1), self.random.choice([g for g in REACHED if g >> 21 == gpa >> 21] or [gpa]))

    def changed(self, vcpu: int) -> None:
        """L2 stores to a table of L1's that it has mapped, if it has one."""
        for gpa in self.random.sample(REACHED, len(REACHED)):
            way = self._way(vcpu, gpa)
            page = (way[-1][2] & 0xFFFFFF000) >> 12 if way and way[-1][0] == 1 else 0
            if 1 <= page <= TABLES:
                entry = self._entry(self._level(page))
                self._add(Kind.ACCESS, vcpu, gpa + 8 * self.random.choice(INDICES), WRITE, 8, entry)
                break

    def dirty(self, vcpu: int) -> None:
        """A dirty log begins, is read, and ends."""
        slot = self.random.choice(tuple(SLOTS))
        self._add(Kind.SLOT, vcpu, slot, *SLOTS[slot], 2)
        for _ in range(self.random.between(1, 3)):
            for _ in range(3):
                self._add(Kind.ACCESS, self.random.getrandbits(1), self._somewhere(vcpu), WRITE, 8, self._entry(1))
            self._add(Kind.DIRTY, vcpu, slot)
        if self.random.random() < 0.8:
            self._add(Kind.SLOT, vcpu, slot, *SLOTS[slot], 0)

    def swap(self, vcpu: int) -> None:
        self._add(Kind.SWAP, vcpu, self._page(), self.random.choice((1, 1, 4)))
        for v in (0, 1):
            self._use(v, self.random.choice(self.recent))

    def protect(self, vcpu: int) -> None:
        page = self._page()
        for writable in (0, 1):
            self._add(Kind.PROTECT, vcpu, page, writable)
            for _ in range(3):
                self._use(self.random.getrandbits(1), self.random.choice(self.recent))

    def zap_all(self, vcpu: int) -> None:
        for _ in range(self.random.choice((1, 1, 2, 3))):
            self._add(Kind.ZAP_ALL, vcpu)

    def host(self, vcpu: int) -> None:
        which = self.random.choice((0, 2, 3))
        self._add(Kind.HOST, vcpu, which, self.random.choice((64, 72, 80)) if which == 0 else self._page())

    # --- what they are made of

    def _add(self, kind: Kind, vcpu: int, *arguments: int) -> None:
        self.pending.append(Op(kind, vcpu, *arguments))

    def _use(self, vcpu: int, gpa: int) -> None:
        """A store of an entry: L1 may have given L2 a table there."""
        how = self.random.choice((0, 0, WRITE, WRITE, FETCH))
        self._add(
            Kind.ACCESS, vcpu, gpa + 8 * self.random.choice(INDICES), how, 8, self._entry(self.random.randint(1, 4)) if how & WRITE else 0
        )

    def _store(self, vcpu: int, gpa: int, entry: int) -> None:
        """By L1's emulator, or by L1 itself, which leaves its L2 for that."""
        kind = Kind.POKE if self.random.random() < 0.6 else Kind.L1_STORE
        self._add(kind, vcpu, gpa, 8, entry)

    def _somewhere(self, vcpu: int) -> int:
        return self.random.choice(OWN if self.guest.cpus[vcpu].seen is None else REACHED)

    def _page(self) -> int:
        return self.random.choice((self.random.below(FRAMES), self.random.below(FRAMES), 512, 519, 1024, 1031))

    def _eptp(self) -> int:
        return self.random.randint(1, ROOTS) << 12 | self.guest.levels - 1 << 3 | 6 | self.random.choice((0, AD))

    def _level(self, table: int) -> int:
        """The level that a table is meant to be of; links astray put it elsewhere too."""
        return max(self.guest.levels - (table - 1) // 4, 1)

    def _entry(self, level: int) -> int:
        """For a table of `level`: most lead on, some forbid, lead astray or are misconfigured."""
        random = self.random
        rights, marks, kind = random.choice(RIGHTS), random.choice((0, 0x100, 0x300)), random.random()
        below = 4 * (self.guest.levels - level + 1)
        if level > 1 and kind < 0.88:
            table = below + random.randint(1, 4) if kind < 0.84 else random.randint(1, 4 * self.guest.levels)
            return table << 12 | rights | marks
        memory_type = 2 if random.random() < 0.02 else 6
        if level in (2, 3):
            frame = random.choice(LARGE_FRAMES) if level == 2 else 0
            return frame << 12 | 0x80 | memory_type << 3 | rights | marks
        frame = random.randint(1, TABLES) if kind > 0.8 else FRAMES + 3 if kind > 0.77 else random.below(FRAMES)
        return frame << 12 | memory_type << 3 | rights | marks

    def _way(self, vcpu: int, gpa: int) -> list[tuple[int, int, int]]:
        """L1's entries on the way of an address: (level, where, what)."""
        cpu = self.guest.cpus[vcpu]
        used = cpu.entries(gpa) if cpu.seen is not None else []
        return [(self.guest.levels - number, at, entry) for number, (at, entry) in enumerate(used)]

    def _path(self, vcpu: int, gpa: int) -> None:
        """Entries that let an address through, where those that are there do not."""
        for level, at, entry in self._way(vcpu, gpa & -PAGE):
            if entry & 7 != 7:
                again = entry | 7 if entry & 7 else self._entry(level) | 7
                self._add(Kind.POKE, vcpu, at, 8, again)
        if self.random.random() < 0.5:
            self._add(Kind.EPT_RUN, vcpu, self.guest.cpus[vcpu].eptp)
