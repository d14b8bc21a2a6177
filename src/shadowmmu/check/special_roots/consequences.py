# SPDX-License-Identifier: GPL-2.0-only
"""Letter g: what follows from the others, where an input meets other tables."""

from __future__ import annotations

from collections.abc import Sequence

from shadowmmu.check.replayed.cpu import ACCESSED_DIRTY
from shadowmmu.check.replayed.inputs import DirtyLog, Fault, Invlpg, Translate, WriteEmulated
from shadowmmu.check.special_roots.align import BOTH, OURS, THEIRS, Place, Taken
from shadowmmu.check.special_roots.fault_path import tables
from shadowmmu.check.special_roots.page_census import GUEST_MODE, INVALID, Census, key_of
from shadowmmu.check.special_roots.rule import ZAPS, Rules, leaves_unsync
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent

CONSEQUENCES = Rules()
Zap = e.PrepareZapPage | e.SyncPage
WALKS = (e.Walk, e.PagingElement, e.SetAccessedBit, e.SetDirtyBit)
FIXES = (
    e.GetPage,
    e.SyncPage,
    e.UnsyncPage,
    e.PrepareZapPage,
    e.SpteRequested,
    e.SetSpte,
    e.FastPageFault,
    e.MarkMmioSpte,
    e.CheckMmioSpte,
    e.HandleMmioPageFault,
    e.MmuPageFaultRet,
)
"""What a fault does to the tables, and how it ends."""


@CONSEQUENCES.under("g")
def zapped(at: Place) -> Taken | None:
    """Zaps of the same, each page as far as it is there: the order is that of their births, and unsync children go first."""
    if not isinstance(at.k, ZAPS) and not isinstance(at.s, ZAPS):
        return None
    theirs, ours = _run(at.kernel.ahead), _run(at.engine.ahead)
    if not any(isinstance(event, e.PrepareZapPage) for event in (*theirs, *ours)):
        return None
    alone, left = _unpaired(at, theirs, ours)
    explained = all(_may_be_alone(at, event, theirs[0], at.ours) for event in alone)
    if explained and all(_may_be_alone(at, event, ours[0], at.theirs) for event in left):
        return Taken(len(theirs), len(ours))
    return None


def _run(events: Sequence[AnyEvent]) -> list[Zap]:
    """The zaps that come next."""
    found: list[Zap] = []
    for event in events:
        if not isinstance(event, e.PrepareZapPage | e.SyncPage):
            break
        found.append(event)
    return found


def _unpaired(at: Place, theirs: Sequence[Zap], ours: Sequence[Zap]) -> tuple[list[Zap], list[Zap]]:
    """What only the kernel and only we zap or sync. A page may be unsync in one of the two, if the censuses say so."""
    left, alone = list(ours), []
    for k in theirs:
        key = key_of(k)
        may = {"root_count", "unsync"} if (key in at.theirs.unsync) != (key in at.ours.unsync) else {"root_count"}
        found = next((s for s in left if type(s) is type(k) and not set(at.matcher.differences(k, s)) - may), None)
        if found is None:
            alone.append(k)
        else:
            left.remove(found)
    return alone, left


def _may_be_alone(at: Place, event: Zap, first: Zap, other: Census) -> bool:
    """One VM zaps a page, or tells that it is in step again, and the other does not.

    It is not there in the other, or not unsync; it is found when pages run out; it was written to often since it was
    looked up last, and the other has looked it up since; or it goes with a table zapped before it, as its unsync
    children do, and what nothing leads to any more of an L2's.
    """
    key = key_of(event)
    below = (at.zapping or event is not first) and bool(event.unsync or key.role & GUEST_MODE)
    if isinstance(event, e.SyncPage):
        return key not in other.unsync or below
    if key not in other.valid or event.role & INVALID or at.recycling:
        return True
    return bool(below or (isinstance(at.given, WriteEmulated) and key in at.theirs.unvisited | at.ours.unvisited))


@CONSEQUENCES.under("g")
def recycled(at: Place) -> Taken | None:
    """One of the two is short of pages sooner than the other, as level-2 pages are made and freed at other times."""
    if at.recycling and isinstance(at.k, e.ZapOldest):
        return THEIRS
    return OURS if at.recycling and isinstance(at.s, e.ZapOldest) else None


@CONSEQUENCES.under("g")
def met_other_tables(at: Place) -> Taken | None:
    """A fault or INVLPG on an address whose way through the tables, or whose page's shadows, were other ones before it."""
    if not at.parted or not isinstance(at.given, Fault | Invlpg):
        return None
    if isinstance(at.k, WALKS) and not at.ours_walks:
        return THEIRS
    if isinstance(at.s, WALKS) and not at.theirs_walk:
        return OURS
    taken = _next_fix(at)
    upper = at.s if taken is not None and taken.special and isinstance(at.s, e.GetPage) and key_of(at.s).level == 2 else None
    if upper is not None and (upper.root_count or leaves_unsync(at, upper)):
        return None
    if taken is not None:
        for event in (at.k if taken.kernel else None, at.s if taken.special else None):
            at.part(event)
    return taken


def _next_fix(at: Place) -> Taken | None:
    k, s = at.k, at.s
    theirs, ours = isinstance(k, FIXES), isinstance(s, FIXES)
    if theirs and ours and type(k) is type(s) and k is not None and s is not None:
        if any(not at.matcher.differences(k, x) for x in at.engine.ahead):
            return OURS
        if any(not at.matcher.differences(x, s) for x in at.kernel.ahead):
            return THEIRS
        return BOTH if isinstance(k, e.SetSpte | e.FastPageFault | e.MmuPageFaultRet | e.CheckMmioSpte | e.HandleMmioPageFault) else THEIRS
    if ours and (not theirs or any(type(x) is type(k) for x in at.engine.ahead)):
        return OURS
    return THEIRS if theirs else None


@CONSEQUENCES.under("g")
def met_other_neighbours(at: Place) -> Taken | None:
    """An entry that is mapped with others beside it, in a table, or for a page with shadows, that differed before."""
    if not isinstance(at.given, Fault):
        return None
    k, s = at.k, at.s
    if isinstance(k, e.SetSpte) and isinstance(s, e.SetSpte) and k.sptep & 0xFFF == s.sptep & 0xFFF:
        gfn = int(k.gfn)
        if at.has_parted(k) or tables(at.theirs, gfn) != tables(at.ours, gfn):
            at.part(k)
            return BOTH
    if isinstance(at.k, e.SetSpte) and at.has_parted(at.k) and (at.s is None or not isinstance(at.s, e.SetSpte)):
        at.part(at.k)
        return THEIRS
    if isinstance(at.s, e.SetSpte) and at.has_parted(at.s) and (at.k is None or not isinstance(at.k, e.SetSpte)):
        at.part(at.s)
        return OURS
    return None


@CONSEQUENCES.under("g")
def marked_before(at: Place) -> Taken | None:
    """A bit of a guest entry that one of the two has set in a fault that the other did not have."""
    if not isinstance(at.given, Translate | Fault):
        return None
    if isinstance(at.k, e.PagingElement) and isinstance(at.s, e.PagingElement) and at.differing() == ["pte"]:
        at.marked = True
        return BOTH if not (at.k.pte ^ at.s.pte) & ~ACCESSED_DIRTY else None
    if at.marked and isinstance(at.k, e.SetAccessedBit | e.SetDirtyBit):
        return THEIRS
    return OURS if at.marked and isinstance(at.s, e.SetAccessedBit | e.SetDirtyBit) else None


@CONSEQUENCES.under("g")
def synced_before(at: Place) -> Taken | None:
    """The kernel syncs a table that ours has synced before, or has not."""
    if isinstance(at.k, e.SyncPage) and key_of(at.k) not in at.ours.unsync:
        at.part(at.k)
        return THEIRS
    return None


@CONSEQUENCES.under("g")
def logged_ahead(at: Place) -> Taken | None:
    """A page is in one dirty log alone: a table that only this VM has synced, or at another time, had a writable entry for it."""
    k, s = at.k, at.s
    if not isinstance(at.given, DirtyLog):
        return None
    theirs, ours = (event if isinstance(event, e.WriteProtectPtMasked) else None for event in (k, s))
    if theirs is not None and ours is not None and theirs.gfn_off == ours.gfn_off:
        return BOTH if at.may_log_alone(theirs.gfn_off, theirs.mask, ours.mask) else None
    if theirs is not None and (ours is None or theirs.gfn_off < ours.gfn_off):
        return THEIRS if at.may_log_alone(theirs.gfn_off, theirs.mask, 0) else None
    return OURS if ours is not None and at.may_log_alone(ours.gfn_off, 0, ours.mask) else None
