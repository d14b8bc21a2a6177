# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Situations: a few operations each that set a stage on which much can go wrong, whatever it is that does.

Each begins with an address in use and the entries on its way, changes something there that the MMU has to follow, and looks
at once, before others change more.
"""

from shadowmmu.check.fuzz.host_situations import HostSituations
from shadowmmu.check.fuzz.operations import (
    FRAMES,
    LARGE_FRAMES,
    TABLE_FRAMES,
    TABLES,
    Kind,
)
from shadowmmu.check.fuzz.sense import CR0_CD, KEEP
from shadowmmu.check.fuzz.table_writer import ACCESSES
from shadowmmu.hardware.walk import CR0_WP, CR4_PCIDE, CR4_PGE, CR4_PSE, CR4_SMAP, CR4_SMEP, USER, WRITE


class Situations(HostSituations):
    """Writes them."""

    def dance(self, vcpu: int) -> None:
        """Change an entry, go to other tables and back, with PCIDs keeping translations; some invalidation on the way."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        (gva, trail), pcids = self._in_use(vcpu), bool(tlb.cr4 & CR4_PCIDE)
        if not trail or tlb.mode.levels < 4 or not trail[-1].address or self.guest.nested:
            return
        keep, here = KEEP if pcids else 0, tlb.cr3
        self._add(Kind.ACCESS, vcpu, gva, 0, 8, 0)
        self._change_leaf(vcpu, trail[-1], way=1)
        there = here
        for _ in range(random.choice((1, 1, 2, 3))):  # so many roots are kept
            there = self._root() & ~0xFFF | (random.choice((here & 0xFFF, random.below(3))) if pcids else 0)
            self._add(Kind.CR3, vcpu, there | keep)
            self._add(Kind.ACCESS, vcpu, self._gva(tlb.mode.levels), random.choice(ACCESSES), 8, 0)
        fate = random.below(4)
        if fate == 0:
            self._add(Kind.INVLPG, vcpu, gva)
        elif fate == 1:
            self._add(Kind.CR4, vcpu, tlb.cr4 ^ CR4_PGE)
        elif fate == 2:
            self._add(Kind.CR3, vcpu, there & ~0xFFF | here & 0xFFF)
        self._add(Kind.CR3, vcpu, here | keep)
        self._add(Kind.ACCESS, vcpu, gva, random.choice(ACCESSES), 8, 0)

    def changeling(self, vcpu: int) -> None:
        """A directory's entry maps a large page, then leads to a table in it, at its first frame or beside, then perhaps the page again."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        (gva, trail), size = self._in_use(vcpu), tlb.mode.entry_size
        at = next((used.pa for used in trail if tlb.mode.steps[used.step].level == 2), None)
        if at is None:
            return
        table, rights = random.choice(TABLE_FRAMES), 0x61 | random.choice((2, 4, 6, 6, 6))
        page = (table & -512) << 12 | rights | 0x80
        beside = [g for g in self.guest.reach[tlb.mode.levels] if g >> 21 == gva >> 21]
        self._add(Kind.POKE, vcpu, table << 12 | (gva >> 12 & (1023 if size == 4 else 511)) * size, size, random.below(FRAMES) << 12 | 0x67)
        for entry in (page, table << 12 | rights, page):
            self._add(random.choice((Kind.POKE, Kind.OUTSIDE, Kind.OUTSIDE)), vcpu, at, size, entry)
            for _ in range(random.between(1, 3)):
                self._add(Kind.ACCESS, vcpu, random.choice(beside), random.choice(ACCESSES), 8, 0)
            if random.random() < 0.4:
                self._add(Kind.INVLPG, vcpu, gva)

    def redirected(self, vcpu: int) -> None:
        """An entry above a leaf, a PDPTE too, leads to other tables, perhaps with other rights; what lies below it is used at once,
        nobody having flushed; perhaps it leads back."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        (gva, trail), levels = self._in_use(vcpu), tlb.mode.levels
        uppers = [(used.pa, used.entry, self._level(vcpu, used)) for used in trail if self._level(vcpu, used) > 1]
        if levels == 3 and trail:
            at = (tlb.cr3 & 0xFFFFFFE0) + (gva >> 27 & 0x18)
            uppers.append((at, self._read(at, 8) or 0, 3))
        if not uppers:
            return
        at, was, level = random.choice(uppers)
        size, below = tlb.mode.entry_size if level < 3 or levels > 3 else 8, self._home(levels, level - 1) << 12
        shift = 22 if levels == 2 else 12 + 9 * (level - 1)
        near = [g for g in self.guest.reach[levels] if g >> shift == gva >> shift]
        for g in (gva, random.choice(near)):
            self._lay(vcpu, below, g, levels, level - 1)
        rights = 1 if levels == 3 and level == 3 else 0x21 | random.choice((2, 4, 6, 6, 6))
        for v in (vcpu, 1 - vcpu):
            self._add(Kind.ACCESS, v, gva, random.choice(ACCESSES), 8, 0)
        for entry in random.choice(((below | rights,), (below | rights,), (below | rights, was))):
            self._add(Kind.POKE, vcpu, at, size, entry)
            if levels == 3 and level == 3 and not self.guest.nested:
                self._add(Kind.CR3, vcpu, tlb.cr3)
            for v in (vcpu, 1 - vcpu, vcpu):
                self._add(Kind.ACCESS, v, random.choice((gva, *near)), random.choice(ACCESSES), 8, 0)

    def executed(self, vcpu: int) -> None:
        """Instructions that use what lies near them, mostly in one large page, and then what others do there."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        known, (gva, trail) = self.guest.reach[tlb.mode.levels], self._in_use(vcpu)
        near = [g for g in known if g >> 21 == gva >> 21] or [random.choice(known)]
        at = next((used.pa for used in trail if self._level(vcpu, used) == 2), None)
        if at is not None and random.random() < 0.7:
            self._add(Kind.POKE, vcpu, at, tlb.mode.entry_size, random.choice(LARGE_FRAMES) << 12 | 0xE1 | random.choice((2, 6, 6)))
        user = USER if random.random() < 0.5 and all(used.entry & USER for used in trail) else 0
        for _ in range(random.between(1, 4)):
            how = user | random.choice((0, WRITE))
            self._add(Kind.INSTRUCTION, vcpu, random.choice(near), random.choice(near), how, random.getrandbits(64))
            if random.random() < 0.3:
                self._add(Kind.ACCESS, random.getrandbits(1), random.choice(near), random.choice(ACCESSES), 8, 0)

    def lent(self, vcpu: int) -> None:
        """The table that is the other's root lies below this one's, which has a level more; then a store spoils it for both."""
        random, tlb, other = self.random, self.guest.oracle.vcpus[vcpu], self.guest.oracle.vcpus[1 - vcpu]
        if (tlb.mode.levels, other.mode.levels) != (5, 4):
            return
        gva, table = random.choice(self.guest.reach[4]), other.cr3 & 0xFFFFF000
        self._add(Kind.POKE, vcpu, (tlb.cr3 & 0xFFFFF000) + (gva >> 48 & 511) * 8, 8, table | 0x67)
        for v in (1 - vcpu, vcpu):
            self._add(Kind.ACCESS, v, gva, random.choice(ACCESSES), 8, 0)
        size = random.choice((3, 8, 16))
        self._add(Kind.POKE, random.getrandbits(1), table | (gva >> 39 & 511) * 8 & 0xFF0, size, 0)
        for v in (vcpu, 1 - vcpu):
            self._add(Kind.ACCESS, v, gva, random.choice(ACCESSES), 8, 0)

    def reloaded(self, vcpu: int) -> None:
        """A PAE guest changes PDPTEs in memory, goes on with those in its registers, and loads them by a bit of a register, or by CR3."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        if tlb.mode.levels != 3 or self.guest.nested:
            return
        gva = random.choice(self.guest.reach[3])
        at, below = (tlb.cr3 & 0xFFFFFFE0) + (gva >> 27 & 0x18), self._home(3, 2) << 12
        self._lay(vcpu, below, gva, 3, 2)
        self._add(Kind.ACCESS, vcpu, gva, random.choice(ACCESSES), 8, 0)
        self._add(Kind.POKE, vcpu, at, 8, random.choice((below | 1, below | 1, below, below | 3)))
        self._add(Kind.ACCESS, vcpu, gva, random.choice(ACCESSES), 8, 0)
        flips = [(Kind.CR0, tlb.cr0 ^ bit) for bit in (CR0_CD, CR0_CD, CR0_WP)]
        flips += [(Kind.CR4, tlb.cr4 ^ bit) for bit in (CR4_PGE, CR4_PSE, CR4_SMEP, CR4_SMAP)]
        kind, value = random.choice([*flips, (Kind.CR3, tlb.cr3)])
        self._add(kind, vcpu, value)
        for g in (gva, random.choice(self.recent)):
            self._add(Kind.ACCESS, vcpu, g, random.choice(ACCESSES), 8, 0)

    def crowd(self, vcpu: int) -> None:
        """Each part of the address space gets a table of its own, which maps itself; the guest stores to all of them through these
        mappings, and flushes: more tables are out of sync than one look gathers."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        levels, size = tlb.mode.levels, tlb.mode.entry_size
        if not levels:
            return
        step, table, done = tlb.mode.steps[-1], FRAMES - 1, list[tuple[int, int]]()
        shift = tlb.mode.steps[-2].shift
        for gva in self.guest.reach[levels]:
            trail = self._look(vcpu, gva)
            at = next((used.pa for used in trail if self._level(vcpu, used) == 2), None)
            if at is None or any(gva >> shift == g >> shift for g, _ in done) or table <= TABLES + len(self.guest.reach[levels]):
                continue
            place = table << 12 | (gva >> step.shift & step.mask) * size
            self._add(Kind.POKE, vcpu, place, size, table << 12 | 0x67)
            self._add(Kind.POKE, vcpu, at, size, table << 12 | 0x67)
            done.append((gva, place))
            table -= 1
        for gva, place in done:
            self._add(Kind.ACCESS, vcpu, gva, 0, 8, 0)
            entry = random.below(TABLES) << 12 | random.choice((0x67, 0x65, 0x27, 0))
            self._add(Kind.ACCESS, vcpu, gva | place & 0xFFF, WRITE, size, entry)
        self._add(Kind.CR3, vcpu, tlb.cr3)
        for gva, _ in random.sample(done, min(4, len(done))):
            self._add(Kind.ACCESS, random.getrandbits(1), gva, random.choice(ACCESSES), 8, 0)

    def interrupted(self, vcpu: int) -> None:
        """Leaves of several tables change through mappings of them; then the guest flushes, while another task wants the CPU."""
        random, tlb = self.random, self.guest.oracle.vcpus[vcpu]
        if not tlb.mode.levels:
            return
        changed = []
        for gva in random.sample(self.guest.reach[tlb.mode.levels], 6):
            trail = self._look(vcpu, gva)
            if trail and self._level(vcpu, trail[-1]) == 1 and trail[-1].address:
                for v in (0, 1):
                    self._add(Kind.ACCESS, v, gva, random.choice(ACCESSES), 8, 0)
                self._change_leaf(vcpu, trail[-1], way=1)
                changed.append(gva)
        self._add(Kind.HOST, vcpu, 1, random.randint(1, 2))
        self._add(Kind.CR3, vcpu, tlb.cr3)
        for gva in changed:
            self._add(Kind.ACCESS, random.getrandbits(1), gva, random.choice(ACCESSES), 8, 0)
