# SPDX-License-Identifier: GPL-2.0-only
"""What an input is about to meet in the two VMs: to be taken before the kernel's gets it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shadowmmu.check.replayed.inputs import DirtyLog, Enter, Fault, Invlpg, Unprotect
from shadowmmu.check.replayed.replayed_vm import ReplayedVm
from shadowmmu.check.special_roots.align import Parting
from shadowmmu.check.special_roots.dirty_logs import Ahead, made_writable
from shadowmmu.check.special_roots.fault_path import BothPaths, shadows, way
from shadowmmu.check.special_roots.page_census import Census
from shadowmmu.check.special_roots.roots_met import freed_on_request


class Look(NamedTuple):
    """Of one input."""

    rooted: frozenset[str]
    """MMUs of the kernel's VM that have a root."""
    paths: BothPaths | None = None
    """If it is about an address."""
    shadowed: tuple[bool, bool] = (False, False)
    """If it is about a page: whether the kernel's VM and ours shadow it."""
    whole: Sequence[bool] = ()
    """At a guest entry: of each root of the kernel's that a request frees, whether nothing below it was zapped."""
    ahead: Ahead = Ahead()
    """At a dirty log: what it may have of one of the two alone."""


def look_at(given: object, sides: tuple[ReplayedVm, ReplayedVm], censuses: tuple[Census, Census], parting: Parting) -> Look:
    """`sides` and `censuses`: the kernel's and ours."""
    rooted = frozenset(mmu.name for mmu in sides[0].vcpu.mmus if mmu.root is not None)
    both = list(zip(sides, censuses, strict=True))
    if isinstance(given, Unprotect):
        theirs, ours = (bool(census.tables.get(given.gfn)) for census in censuses)
        return Look(rooted, shadowed=(theirs, ours))
    if isinstance(given, Enter):
        return Look(rooted, whole=freed_on_request(sides[0]))
    if isinstance(given, DirtyLog):
        return Look(rooted, ahead=Ahead(*(made_writable(side, census, parting.pages, given.slot) for side, census in both)))
    if isinstance(given, Fault | Invlpg):
        their_way, our_way = (way(side, census, given.address)[0] for side, census in both)
        return Look(rooted, BothPaths(their_way, our_way, *map(shadows, censuses)))
    return Look(rooted)
