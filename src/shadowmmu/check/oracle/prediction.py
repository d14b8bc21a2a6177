# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""What a bare CPU does with the guest's present tables: it walks them, on a copy of the entries that it would mark."""

from typing import NamedTuple

import cython

from shadowmmu.check.oracle.guest_tlb import GuestTlb
from shadowmmu.check.oracle.present import Present
from shadowmmu.check.oracle.watched_guest import WatchedGuest
from shadowmmu.hardware import walk as hw
from shadowmmu.hardware.second_level import Npt, SecondLevelFault, walk_two_dimensions
from shadowmmu.hardware.two_dimensional import L2
from shadowmmu.hardware.walk import Translation, Walk


class Prediction(NamedTuple):
    """What a bare CPU does with the present tables; what it sets in them is in `PredictingTlb.present`."""

    gva: int
    access: int
    result: Translation | int
    address: int  # what a fault reports
    nested: bool  # it is a nested fault, L1's
    two_dimensions: bool = False


class NotJudged(Exception):
    """An emulated access of an L2 in PAE mode whose PDPTEs Linux cannot load: it goes on with old ones, a bare CPU faults."""


class PredictingTlb(GuestTlb):
    """Looks ahead of the engine."""

    def __init__(self, oracle: WatchedGuest, name: str) -> None:
        super().__init__(oracle, name)
        self.l2: L2 | None = None
        """The L2 that runs on nested tables, if it has paging of its own."""
        self.prediction: Prediction | None = None
        self.present = Present(oracle.memory)
        self.way = Walk(self.present)

    def before_walk(self, gva: int, access: int, ac: bool, emulated: bool = False) -> None:
        """Walk the present tables as a bare CPU would, on a copy of the entries it would mark; L2's too for its emulator."""
        self.present.begin()
        if self.l2 is not None and emulated:
            tables = cython.cast(object, self.present)
            npt = Npt(self.mode, tables.load, tables.store, self.cr3, self.pdptes)
            found, address, nested = self._walk_l2(self.l2, npt, gva, access, ac)
            self.prediction = Prediction(gva, access, found, address, nested, True)
            return
        self.prediction = Prediction(gva, access, self._walk_present(gva, access, ac), gva, self.nested)

    def _walk_present(self, gva: int, access: int, ac: bool) -> Translation | int:
        if not self.mode.levels:
            return Translation(gva & hw.ADDRESS, 12, hw.ALL | hw.DIRTY)
        way = self.way
        way.pdptes = self.pdptes if self.mode.levels == 3 else None
        code = way.go(self.mode, self.cr3, gva, access, ac)
        return way.translation() if code == DONE else code

    def _walk_l2(self, l2: L2, npt: Npt, gva: int, access: int, ac: bool) -> tuple[Translation | int, int, bool]:
        """What an access of L2's comes to: (result, address that a fault reports, whether that is nested)."""
        try:
            pdptes = self._pdptes_of_l2(l2, npt) if l2.mode.levels == 3 else None
            found = walk_two_dimensions(l2.mode, npt, l2.cr3, gva, access, ac, pdptes, l2.pkru)
        except SecondLevelFault as fault:
            return fault.code & 0xFFFFFFFF, fault.gpa if self.oracle.strict else fault.gpa & ~0xFFF, True
        if isinstance(found, int):
            return found, gva, False
        return Translation(found[1] & ~0xFFF, 12, found[0].rights), gva, False

    def _pdptes_of_l2(self, l2: L2, npt: Npt) -> tuple[int, ...]:
        """What Linux loads before it walks a PAE L2's tables; raises NotJudged where it keeps old ones instead."""
        try:
            at = npt.translate(l2.cr3 & ~0xFFF, 0, True) | l2.cr3 & 0xFE0
        except SecondLevelFault:
            raise NotJudged("L2's PDPTEs are not mapped") from None
        pdptes = tuple(npt.read(at + 8 * i, 8) or 0 for i in range(4))
        if self.memory.host(at) is None or any(p & 1 and p & l2.mode.pdpte_reserved for p in pdptes):
            raise NotJudged("L2's PDPTEs have reserved bits, or are not in memory")
        return pdptes
