# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Invents what an L2 on nested tables does, and its L1 with it: paging of its own, tables, registers."""

from contextlib import suppress

from shadowmmu.check.fuzz.operations import LOW, TABLES, Kind
from shadowmmu.check.fuzz.sense import CR0_BASE
from shadowmmu.check.fuzz.situations import Situations
from shadowmmu.check.fuzz.table_writer import ACCESSES, NORMAL
from shadowmmu.hardware.second_level import BeyondNestedTables, Npt, SecondLevelFault, walk_two_dimensions
from shadowmmu.hardware.walk import (
    ADDRESS,
    CR0_PG,
    CR0_WP,
    CR4_PGE,
    CR4_PKE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LME,
    EFER_NXE,
    USER,
    WRITE,
    walk,
)

KEY_BITS = 15 << 59  # of an entry


class L2Author(Situations):
    """Writes it."""

    def l2_mode(self, vcpu: int) -> None:
        """L1 gives L2 a paging mode, or takes it."""
        random = self.random
        levels = random.choice((0, 2, 3, 4, 4, 5 if 5 in self.guest.modes.values() else 4))
        cr4 = NORMAL[levels] | sum(bit for bit in (CR4_PGE, CR4_SMEP, CR4_SMAP, CR4_PKE) if random.random() < 0.3)
        efer = (EFER_NXE if random.random() < 0.7 else 0) | (EFER_LME if levels > 3 else 0)
        cr0 = CR0_BASE | (CR0_WP if random.random() < 0.7 else 0) | (CR0_PG if levels else 0)
        self._add(Kind.L2_MODE, vcpu, cr0, self._l2_home(vcpu), cr4, efer)

    def l2_tables(self, vcpu: int) -> None:
        """L2 stores paths of its own tables, then walks them."""
        for gva in (self.random.choice(self.recent), self.random.choice(LOW)):
            self._l2_path(vcpu, gva)
            self._add(Kind.ACCESS, vcpu, gva, self._how(), 8, 0)

    def l2_judged(self, vcpu: int) -> None:
        """What L2's own tables allow, as its emulator judges it, before and after a bit of a register that decides over it turns."""
        if self.guest.oracle.vcpus[vcpu].l2 is None:
            self.l2_mode(vcpu)
            return
        known = {gva: rights for gva in LOW if (rights := self._l2_rights(vcpu, gva)) is not None}
        if not known or self.random.random() < 0.2:
            self.l2_tables(vcpu)
            return
        some = [gva for gva, rights in known.items() if rights & (WRITE | USER) != WRITE | USER]
        gva = self.random.choice(some or list(known))
        for _ in range(self.random.between(1, 4)):
            self._emulate(vcpu, gva)
            self.l2_register(vcpu)
            self._emulate(vcpu, gva)

    def l2_register(self, vcpu: int) -> None:
        """L2 loads CR3 without an exit, or turns a bit of another register."""
        cr0, _, cr4, efer = self.guest.l2[vcpu]
        flips = (0, cr0 ^ CR0_WP), *((2, cr4 ^ bit) for bit in (CR4_SMEP, CR4_SMAP, CR4_PSE, CR4_PKE)), (3, efer ^ EFER_NXE)
        number, value = self.random.choice(((1, self._l2_home(vcpu)), *flips))
        self._add(Kind.L2_REGISTER, vcpu, number, value)

    def keyed(self, vcpu: int) -> None:
        """A key that forbids something, in L2's own entries, where it counts if CR4.PKE is on, and in those of L1's nested tables,
        where it never does, L1's CR4.PKE being on."""
        random, tlb, key = self.random, self.guest.oracle.vcpus[vcpu], self.random.below(16)
        gva, l2 = random.choice(self.recent), tlb.l2
        if tlb.mode.levels > 3 and gva in self.guest.reach[tlb.mode.levels]:
            if not tlb.cr4 & CR4_PKE:
                self._add(Kind.CR4, vcpu, tlb.cr4 | CR4_PKE)
            for used in self._look(vcpu, gva)[-1:]:
                self._write_entry(vcpu, used.pa, used.entry & ~KEY_BITS | key << 59)
        if l2 is not None and l2.mode.levels > 3:
            gva = random.choice(LOW)
            self._l2_path(vcpu, gva, key)
        self._add(Kind.PKRU, vcpu, random.getrandbits(32) & ~(3 << 2 * key) | random.randint(1, 3) << 2 * key)
        for _ in range(random.between(2, 5)):
            self._emulate(vcpu, gva)
            self._add(Kind.ACCESS, vcpu, gva, self._how(), 8, random.getrandbits(64))
            cr0, _, cr4, _ = self.guest.l2[vcpu]
            number, value = random.choice(((2, cr4 ^ CR4_PKE), (2, cr4), (0, cr0 ^ CR0_WP), (0, cr0)))
            self._add(Kind.L2_REGISTER, vcpu, number, value)

    def beyond(self, vcpu: int) -> None:
        """An address whose low 32 bits are in use."""
        high = self.random.choice((1, 1, 4, 0x7F, 0x80)) << 32
        self._add(Kind.BEYOND, vcpu, high | self.random.choice(self.recent) & 0xFFFFFFFF, self.random.choice(ACCESSES))

    def _emulate(self, vcpu: int, gva: int) -> None:
        for _ in range(self.random.between(1, 4)):
            self._add(Kind.EMULATED, vcpu, gva, self._how(), 8, self.random.getrandbits(56))

    def _l2_path(self, vcpu: int, gva: int, key: int | None = None) -> None:
        """Entries of L2's own tables down to a page at `gva`, where L1 maps those tables; where it does not, it is made to.

        `key`: the protection key that they have, in place of any.
        """
        tlb = self.guest.oracle.vcpus[vcpu]
        if tlb.l2 is None:
            return
        levels, table = tlb.l2.mode.levels, tlb.l2.cr3
        size = tlb.l2.mode.entry_size
        indexes = [(s.level, gva >> s.shift & s.mask) for s in tlb.l2.mode.steps]
        for level, index in ([(3, gva >> 30 & 3)] if levels == 3 else []) + indexes:
            place = walk(tlb.mode, self._read, tlb.cr3, table, USER | WRITE, pdptes=tlb.pdptes)
            if isinstance(place, int):
                self._path(vcpu, tlb.cr3, table, tlb.mode.levels)
                self._add(Kind.CR3, vcpu, tlb.cr3)
                return
            entry = self._entry(levels, level, hostile=0.2) & ~(ADDRESS if size == 8 else 0xFFFFF000) | 1
            if key is not None and levels > 3:
                entry = entry & ~KEY_BITS | key << 59
            frame = self._l2_home(vcpu)
            if place.page >> 12 > TABLES or place.shift > 12 or self.random.random() < 0.1:  # L1's tables are not overwritten often
                self._add(Kind.POKE, vcpu, place.address(table) + index * size, size, entry | frame)
            table = frame

    def _l2_home(self, vcpu: int) -> int:
        """An L2 physical address for a table of L2's: mostly one that L1 maps, to a small page that holds none of its own."""
        tlb = self.guest.oracle.vcpus[vcpu]
        homes = [g for g in LOW if self.glance.small_page(tlb.mode, tlb.cr3, tlb.pdptes, g, USER | WRITE) > TABLES]
        return self.random.choice(homes if homes and self.random.random() < 0.85 else LOW)

    def _l2_rights(self, vcpu: int, gva: int) -> int | None:
        """What L2's own tables allow at `gva`; None: they do not map it, or it is not known as its PDPTEs are in registers."""
        tlb = self.guest.oracle.vcpus[vcpu]
        if tlb.l2 is None or tlb.l2.mode.levels == 3:
            return None
        npt = Npt(tlb.mode, self._read, lambda *_: None, tlb.cr3, tlb.pdptes)
        with suppress(SecondLevelFault, BeyondNestedTables):
            found = walk_two_dimensions(tlb.l2.mode, npt, tlb.l2.cr3, gva)
            return found[0].rights if isinstance(found, tuple) else None
        return None
