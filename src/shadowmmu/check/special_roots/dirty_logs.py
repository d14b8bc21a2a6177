# SPDX-License-Identifier: GPL-2.0-only
"""What may be in the dirty log of one of the two VMs alone: pages that a sync has made writable, ahead of any write.

A sync of a level-1 table makes writable what the guest's entries let be written, and marks it as dirty. Where the two have synced a
table at different times, or one of them has not, so a log may differ in what it maps; never in a page that was stored to, which the
judge of each sees to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from shadowmmu.check.replayed.replayed_vm import ReplayedVm
from shadowmmu.check.special_roots.page_census import Census, Key
from shadowmmu.engine.arena.spte import Spte
from shadowmmu.trace.fields import FRAME_BITS
from shadowmmu.x86.pte import Pte

MAPS, WRITE = int(Spte.MMU_PRESENT), int(Pte.WRITABLE)
ENTRIES, PAGE = 512, 4096


class Ahead(NamedTuple):
    """Before a log is read: gfns that were made writable in tables which the two VMs have synced otherwise."""

    theirs: frozenset[int] = frozenset()
    ours: frozenset[int] = frozenset()

    def explains(self, first: int, theirs: int, ours: int) -> bool:
        """Of the bits of two masks, for the gfns from `first` on, those that one has alone."""
        return _gfns(first, theirs & ~ours) <= self.theirs and _gfns(first, ours & ~theirs) <= self.ours


def _gfns(first: int, mask: int) -> set[int]:
    return {first + bit for bit in range(mask.bit_length()) if mask >> bit & 1}


def made_writable(side: ReplayedVm, census: Census, pages: Iterable[Key], slot: int) -> frozenset[int]:
    """gfns of a slot for which one of these pages has a writable entry."""
    tables = [census.valid[page] for page in pages if page in census.valid and page.level == 1]
    entries = (side.vm.read_host_u64(table + 8 * index) for table in tables for index in range(ENTRIES))
    frames = {entry & FRAME_BITS for entry in entries if entry & MAPS and entry & WRITE}
    base, size, _ = side.host.live[slot]
    return frozenset(gpa // PAGE for gpa in range(base, base + size, PAGE) if side.vm.host_address(gpa) in frames)
