# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Looks at the guest's tables, and writes entries: what the author's inventions are made of."""

from collections.abc import Sequence
from functools import cache

from shadowmmu.check.fuzz.draw import Draw
from shadowmmu.check.fuzz.glance import Glance
from shadowmmu.check.fuzz.host_operations import HostOperations
from shadowmmu.check.fuzz.operations import (
    AC,
    ALIASED,
    FRAMES,
    GUEST,
    LARGE_FRAMES,
    LOW,
    MOVED,
    PAGE,
    ROOTS,
    SLOTS,
    TABLE_FRAMES,
    TABLES,
    Kind,
    Op,
    Setup,
)
from shadowmmu.hardware.walk import (
    CR0_PG,
    CR4_LA57,
    CR4_PAE,
    CR4_PSE,
    EFER_LME,
    FETCH,
    USER,
    WRITE,
    Step,
    TrailEntry,
    paging,
)

ACCESSES = (0, 0, WRITE, WRITE, USER, USER, USER | WRITE, USER | WRITE, FETCH, FETCH, USER | FETCH, USER | FETCH)
HOMES = {
    (modulus, rest): tuple(t for t in range(ROOTS + 1, TABLES + 1) if t % modulus == rest)
    for modulus in range(1, 5)
    for rest in range(modulus)
}
"""Table pages by what they leave when divided: each is at home at one level, in each mode."""
NX = 1 << 63
CHANCES = ((0x1, 0.94), (0x2, 0.8), (0x4, 0.8), (0x20, 0.7), (0x40, 0.5), (0x100, 0.1))
"""Of the bits of an entry."""
NORMAL = {0: 0, 2: CR4_PSE, 3: CR4_PAE, 4: CR4_PAE, 5: CR4_PAE | CR4_LA57}


_new = tuple.__new__  # what `Op` does, without a call of Python's for each


@cache
def steps_of(levels: int) -> tuple[Step, ...]:
    """The levels of a walk in the mode of that many levels, large pages on."""
    return paging(CR0_PG, NORMAL[levels], EFER_LME if levels > 3 else 0, GUEST).steps


class TableWriter:
    """Appends operations to `pending`. Looks at guest memory only through the oracle's eyes."""

    def __init__(self, setup: Setup, guest: HostOperations) -> None:
        self.random = Draw(f"author {setup.seed}")
        self.guest = guest
        self.glance = Glance(guest.slots)
        self.pending: list[Op] = []
        self.recent = [0] * 6  # pages accessed of late, by any vCPU
        self.large = self.random.choice((0.05, 0.15, 0.15, 0.5))  # how often a directory's entry maps a large page

    def _write_entry(self, vcpu: int, gpa: int, entry: int, make_way: bool = False) -> None:
        """A store to a table: through an address that maps it, if one is known, else by an emulated instruction.

        `make_way`: where no address maps it, one is made to.
        """
        mode = self.guest.oracle.vcpus[vcpu].mode
        known = self.guest.reach[mode.levels]
        tried = self.random.sample(known, len(known) if make_way else 8)
        through = self._through(vcpu, tried, gpa >> 12)
        if through is None and make_way:
            for g in tried:
                trail = self._look(vcpu, g)
                if trail and trail[-1].step == len(mode.steps) - 1 and trail[-1].pa != gpa:
                    through = g
                    self._add(Kind.POKE, vcpu, trail[-1].pa, mode.entry_size, gpa & ~0xFFF | 0x63)
                    break
        if through is None and self.random.random() < 0.3:
            held = self._held(vcpu, gpa >> 12, 1)
            through = held[0] if held else None
        if through is not None and (make_way or self.random.random() < 0.8):
            self._add(Kind.ACCESS, vcpu, through | gpa & 0xFFF, WRITE, mode.entry_size, entry)
            return
        size, chance = mode.entry_size, self.random.random()
        if self.guest.nested and chance < 0.6:
            self._add(Kind.L1_STORE, vcpu, gpa, size, entry, self.random.random() < 0.2)
            return
        before = self._read(gpa - size, size) if gpa & 0xFFF else None
        if chance < 0.1 and before is not None:  # with the entry before it, in one store
            self._add(Kind.POKE, vcpu, gpa - size, 2 * size, before | entry << 8 * size)
        elif chance < 0.2:  # in two pieces, one of them misaligned or short
            cut = self.random.between(1, size)
            self._add(Kind.POKE, vcpu, gpa, cut, entry & (1 << 8 * cut) - 1)
            self._add(Kind.POKE, vcpu, gpa + cut, size - cut, entry >> 8 * cut)
        else:
            self._add(Kind.POKE, vcpu, gpa, size, entry)

    def _gva(self, levels: int) -> int:
        """A watched address that is canonical with that many levels; without paging anything, mostly memory."""
        if not levels:
            return self.random.choice((self.random.below(FRAMES) << 12, self.random.choice(LOW)))
        return self.random.choice(self.guest.reach[levels])

    def _levels(self, vcpu: int) -> int:
        return self.guest.oracle.vcpus[vcpu].mode.levels

    def _read(self, gpa: int, size: int) -> int | None:
        return self.guest.slots.peek(gpa, size)

    def _look(self, vcpu: int, gva: int) -> list[TrailEntry]:
        """The entries of a walk of the present tables."""
        tlb = self.guest.oracle.vcpus[vcpu]
        return self.glance.trail(tlb.mode, tlb.cr3, tlb.four_pdptes(), gva)

    def _in_use(self, vcpu: int) -> tuple[int, list[TrailEntry]]:
        """An address accessed of late, and the entries of its walk; none without paging, or where the mode cannot name it."""
        gva, levels = self.random.choice(self.recent), self._levels(vcpu)
        return gva, self._look(vcpu, gva) if levels and gva in self.guest.reach[levels] else []

    def _level(self, vcpu: int, used: TrailEntry) -> int:
        """The level of the table that the entry is in."""
        return self.guest.oracle.vcpus[vcpu].mode.steps[used.step].level

    def _maps_table(self, vcpu: int, gva: int, access: int = 0) -> int:
        """The table page that a small page at `gva` maps now for `access`, or 0."""
        tlb = self.guest.oracle.vcpus[vcpu]
        page = self.glance.small_page(tlb.mode, tlb.cr3, tlb.four_pdptes(), gva, access)
        return page if 1 <= page <= TABLES else 0

    def _through(self, vcpu: int, among: Sequence[int], table: int) -> int | None:
        """One of the addresses, at which a small page maps this table page for a store."""
        if not 1 <= table <= TABLES:
            return None
        tlb = self.guest.oracle.vcpus[vcpu]
        return self.glance.through(tlb.mode, tlb.cr3, tlb.four_pdptes(), among, WRITE, table)

    def _held(self, vcpu: int, first: int, pages: int) -> list[int]:
        """Addresses at which the vCPU may hold a translation to these guest pages, stale ones included."""
        tlb = self.guest.oracle.vcpus[vcpu]
        if not tlb.mode.levels:
            return [(first + self.random.below(pages)) << 12]
        return [g for g in self.guest.reach[tlb.mode.levels] if tlb.leads(g, first, pages)]

    def _home(self, levels: int, level: int) -> int:
        """A table page for `level`: each has a level where it is used most."""
        if self.random.random() < 0.06:
            return self.random.choice(TABLE_FRAMES)
        modulus = max(levels - 1, 1)
        homes = HOMES[modulus, level % modulus]
        return self.random.choice(homes) if self.random.random() < 0.85 else self.random.randint(1, TABLES)

    def _entry(self, levels: int, level: int, hostile: float = 1.0) -> int:
        """An entry for a table of `level`: mostly sensible, sometimes not."""
        random = self.random
        if levels == 3 and level == 3:  # PDPTE: rights are reserved bits there
            return self._home(levels, 2) << 12 | random.chance(0.95) | random.chance(0.01 * hostile) << 1
        large = level in (2, 3) and random.chance(self.large if level == 2 else 0.02)
        if large:
            frame = random.choice(LARGE_FRAMES) if level == 2 else 0
        elif level > 1:
            frame = self._home(levels, level - 1)
        else:
            frame = random.below(FRAMES) if random.chance(0.6) else random.randint(1, TABLES)
            if self.guest.alias and random.chance(0.2):
                frame = sum(ALIASED) - 1 - random.below(ALIASED[1])
        if random.chance(0.03 * hostile):
            frame = random.choice((FRAMES + 3, MOVED + 2, 0x80000, 0xFFFFF))
        entry = frame << 12
        for bit, often in CHANCES:
            entry |= bit if random.chance(often) else 0
        if large:
            entry |= 0x80 | (random.getrandbits(10) << 12 if random.chance(0.05 * hostile) else 0)
            entry |= random.below(16) << 13 if levels == 2 and random.chance(0.1) else 0  # PSE-36: memory lies below 4 GiB
        elif random.chance(0.01 * hostile):
            entry |= 0x80
        if levels > 2:
            entry |= random.getrandbits(4) << 59 if levels > 3 and random.chance(0.2) else 0  # a protection key, or ignored
            entry |= NX if random.chance(0.15) else 0
            entry |= 1 << random.between(40, 52) if random.chance(0.02 * hostile) else 0
        return entry

    def _table_slot(self, levels: int, table: int) -> tuple[int, int]:
        """(address, level) of an entry of table page `table` that some watched address uses."""
        gva, steps = self._gva(levels), steps_of(levels)
        if levels == 3 and table <= ROOTS:
            return table * PAGE + self.random.below(4) * 8, 3
        step = steps[0] if table <= ROOTS else self.random.choice(steps)
        home = [s for s in steps if table % max(levels - 1, 1) == s.level % max(levels - 1, 1)]
        if table > ROOTS and home and self.random.random() < 0.8:
            step = home[0]
        return table * PAGE + (gva >> step.shift & step.mask) * (4 if levels == 2 else 8), step.level

    def _add(self, kind: Kind, vcpu: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> None:
        self.pending.append(_new(Op, (kind, vcpu, a, b, c, d)))

    def _how(self) -> int:
        return self.random.choice(ACCESSES) | (AC if self.random.random() < 0.2 else 0)

    def _root(self) -> int:
        return self.random.randint(1, ROOTS) * PAGE | (self.random.choice((0x20, 0x18)) if self.random.random() < 0.1 else 0)

    def _path(self, vcpu: int, cr3: int, gva: int, levels: int) -> None:
        """Entries from `cr3` down to a small page at `gva`."""
        table = cr3 & ~0xFFF
        if levels == 3:
            pdpte = self._home(3, 2) << 12 | 1
            self._add(Kind.POKE, vcpu, (cr3 & ~31) + (gva >> 30 & 3) * 8, 8, pdpte)
            table = pdpte & ~0xFFF
        self._lay(vcpu, table, gva, levels, levels)

    def _lay(self, vcpu: int, table: int, gva: int, levels: int, top: int) -> None:
        """Entries from `table`, which is one of level `top`, down to a small page at `gva`."""
        size = 4 if levels == 2 else 8
        for step in steps_of(levels):
            if step.level > top:
                continue
            entry = self._entry(levels, step.level, hostile=0) & 0xFFFFF07F | 0x21
            if step.level > 1 and not 1 <= entry >> 12 <= TABLES and entry >> 12 not in TABLE_FRAMES:
                entry = entry & 0xFFF | self._home(levels, step.level - 1) << 12
            self._add(Kind.POKE, vcpu, table + (gva >> step.shift & step.mask) * size, size, entry)
            table = entry & ~0xFFF

    def _shared_leaf(self, vcpu: int) -> tuple[int, TrailEntry] | None:
        """An address in use, and the leaf entry through which both vCPUs translate it."""
        levels = self._levels(vcpu)
        if not levels or self._levels(1 - vcpu) != levels:
            return None
        for gva in [g for g in self.recent if g in self.guest.reach[levels]] + self.random.sample(self.guest.reach[levels], 6):
            mine, other = self._look(vcpu, gva), self._look(1 - vcpu, gva)
            if mine and other and mine[-1].pa == other[-1].pa and mine[-1].address:
                return gva, mine[-1]
        return None

    def _change_leaf(self, vcpu: int, leaf: TrailEntry, way: float = 0.8) -> None:
        """Point a leaf elsewhere, or take rights away; `way`: how often its table is mapped for that, where it is not."""
        levels = self._levels(vcpu)
        entry = self._entry(levels, 1, hostile=0) | 0x21 if self.random.random() < 0.6 else leaf.entry & ~self.random.choice((1, 2, 4))
        self._write_entry(vcpu, leaf.pa, entry, make_way=self.random.random() < way)

    def _used_page(self, vcpu: int) -> int:
        """A guest page, mostly one that the vCPU has mapped."""
        gva, tlb = self.random.choice(self.recent), self.guest.oracle.vcpus[vcpu]
        held = sorted(tlb.possible(gva)) if gva in self.guest.reach[tlb.mode.levels] and tlb.mode.levels else []
        page = (self.random.choice(held).address(gva) if held else gva) >> 12
        if self.random.random() < 0.2 or not any(first <= page < first + pages for first, pages in SLOTS.values()):
            first, pages = SLOTS[self.random.choice(tuple(SLOTS))]
            page = first + self.random.below(pages)
        return page

    def _touch(self, first: int, pages: int, count: int, access: int | None = None) -> None:
        """Accesses of both vCPUs to guest pages that something has just been done to."""
        for vcpu in (0, 1):
            held = self._held(vcpu, first, pages)
            for gva in self.random.sample(held, min(count, len(held))):
                how = self.random.choice(ACCESSES) if access is None else access
                self._add(Kind.ACCESS, vcpu, gva, how, 1, self.random.getrandbits(8))
