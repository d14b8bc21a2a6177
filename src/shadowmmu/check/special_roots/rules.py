# SPDX-License-Identifier: GPL-2.0-only
"""The rules by which a VM with roots of special pages may differ from the kernel, event by event.

A rule looks at one place of the two streams (`align.Place`), where they differ, and says how many events of each it
explains, or None. Each belongs to a letter of `known_differences.py`; what no rule explains is a divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeGuard

from shadowmmu.check.replayed.cpu import ACCESSED_DIRTY
from shadowmmu.check.replayed.inputs import DirtyLog, Enter, Fault, Invlpg, Translate, WriteEmulated
from shadowmmu.check.special_roots.align import BOTH, OURS, THEIRS, Place, Taken
from shadowmmu.check.special_roots.fault_path import tables
from shadowmmu.check.special_roots.page_census import GUEST_MODE, INVALID, Census, key_of
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.x86.pferr import Pferr

Rule = Callable[[Place], Taken | None]
RULES: list[tuple[str, Rule]] = []
"""(letter, rule), in the order in which they are asked."""

ZAPS = (e.PrepareZapPage, e.SyncPage)
"""What a zap tells: the page, and that an unsync one is in step again."""
Zap = e.PrepareZapPage | e.SyncPage
LOADS = (e.PrepareZapPage, e.MmuLoad, e.GetPage, e.SyncRoots, e.SyncPage, e.MarkMmioSpte, e.LoadPgd)
"""What a reload of a root tells."""
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
MARKS = (e.MarkMmioSpte, e.CheckMmioSpte, e.HandleMmioPageFault)
RSVD = int(Pferr.RSVD)


def rule(letter: str) -> Callable[[Rule], Rule]:
    """Enter a rule under its letter."""

    def enter(function: Rule) -> Rule:
        RULES.append((letter, function))
        return function

    return enter


# --- f: the special page itself


@rule("f")
def special_page(at: Place) -> Taken | None:
    """A special page is made or freed."""
    return OURS if isinstance(at.s, e.SpecialAlloc | e.SpecialFree) else None


# --- a: level-2 pages when they are touched


def _level_2(s: AnyEvent | None) -> TypeGuard[e.GetPage]:
    """A level-2 page is looked up, which no root of ours counts (b)."""
    return isinstance(s, e.GetPage) and key_of(s).level == 2 and not s.root_count


@rule("a")
def touched(at: Place) -> Taken | None:
    """A fault looks up the level-2 page that it needs below a special page. None of its table at level 1 is unsync any more."""
    if not _level_2(at.s) or not isinstance(at.given, Fault) or at.ours.tables.get(key_of(at.s).gfn, set()) & at.ours.unsync:
        return None
    if at.is_under_special(at.s.spt):
        at.linked = True
        at.ours.unvisited.discard(key_of(at.s))
        at.theirs.unvisited.add(key_of(at.s))
        return OURS
    return None


@rule("a")
def loaded_too(at: Place) -> Taken | None:
    """A root that is prefilled leads from its load on to a level-2 page that is there; the kernel makes those that are not."""
    if not at.loading or not _level_2(at.s) or at.s.created:
        return None
    if isinstance(at.k, e.GetPage) and not set(at.differing()) - {"root_count", "created"}:
        return BOTH
    return OURS if at.kernel_shuts_down else None


@rule("a")
def synced_at_the_load(at: Place) -> Taken | None:
    """There the page is synced before it is linked, where the kernel first looks up all four and then syncs below them."""
    if at.loading and isinstance(at.s, e.SyncPage | e.MarkMmioSpte) and any(not at.matcher.differences(k, at.s) for k in at.kernel.ahead):
        at.early.append(at.s)
        return OURS
    k = at.k
    done = None if k is None else next((s for s in at.early if not at.matcher.differences(k, s)), None)
    if done is None:
        return None
    at.early.remove(done)
    return THEIRS


@rule("a")
def loaded(at: Place) -> Taken | None:
    """The kernel looks up a level-2 page, to make a root of it."""
    if at.loading and isinstance(at.k, e.GetPage) and key_of(at.k).level == 2:
        at.ours.unvisited.add(key_of(at.k))
        at.theirs.unvisited.discard(key_of(at.k))
        return THEIRS
    return None


@rule("a")
def zapped_at_the_load(at: Place) -> Taken | None:
    """To look a level-2 page up, the kernel zaps unsync level-1 pages of the same table; ours does when it looks it up."""
    k = at.k
    if not at.loading or not isinstance(k, ZAPS) or not k.unsync or key_of(k).level != 1:
        return None
    looked_up = next((event for event in at.kernel.ahead if isinstance(event, e.GetPage)), None)
    return THEIRS if looked_up is not None and key_of(looked_up).level == 2 and looked_up.gfn == k.gfn else None


@rule("a")
def synced_later(at: Place) -> Taken | None:
    """The kernel syncs a table below its root; ours is unsync still, and no root of ours leads there."""
    if isinstance(at.k, e.SyncPage) and key_of(at.k) in at.ours.unsync and not at.is_reachable(key_of(at.k)):
        at.part(at.k)
        at.syncing = True
        return THEIRS
    if at.syncing and isinstance(at.k, e.MarkMmioSpte) and not isinstance(at.s, e.MarkMmioSpte):
        at.part(at.k)
        return THEIRS
    return None


@rule("a")
def synced_when_linked(at: Place) -> Taken | None:
    """A table that was left unsync is synced when it is linked, or when a root leads there again."""
    if isinstance(at.s, e.SyncPage) and (at.linked or (isinstance(at.given, Enter) and key_of(at.s) not in at.theirs.unsync)):
        at.part(at.s)
        return OURS
    return None


@rule("a")
def code_without_present(at: Place) -> Taken | None:
    """The entry of a special page is not linked: the fault's code has neither P nor RSVD."""
    fields = at.differing()
    if not at.unlinked or fields not in (["err"], ["pferr"]):
        return None
    return BOTH if not (getattr(at.k, fields[0]) ^ getattr(at.s, fields[0])) & ~9 else None


@rule("a")
def refused_before_emulation(at: Place) -> Taken | None:
    """There a fault walks the guest's tables, which refuse it, where the kernel emulates by a mark of MMIO, and then finds the same."""
    if not at.unlinked or at.theirs_walk or not isinstance(at.given, Fault) or not at.given.code & RSVD:
        return None
    return OURS if isinstance(at.s, e.WalkerError | e.InvalidateGva) else None


# --- b, d: a level-2 page is no root


@rule("b")
def root_count(at: Place) -> Taken | None:
    """The same page, which a root of the kernel's holds and none of ours."""
    if not isinstance(at.k, e.PageEvent) or at.differing() != ["root_count"]:
        return None
    assert isinstance(at.s, e.PageEvent)
    return BOTH if key_of(at.k).level == 2 and not at.s.root_count else None


@rule("b")
def invalid_freed(at: Place) -> Taken | None:
    """The kernel frees a root's page that was zapped before; ours is gone since."""
    k = at.k
    return THEIRS if isinstance(k, e.PrepareZapPage) and k.role & INVALID and key_of(k).level == 2 else None


@rule("b")
def pages_in_use(at: Place) -> Taken | None:
    """The number of pages in use, which the events of both tell."""
    if not isinstance(at.k, e.ZapAllFast) or not isinstance(at.s, e.ZapAllFast) or at.differing() != ["mmu_used_pages"]:
        return None
    return BOTH if at.k.mmu_used_pages - at.s.mmu_used_pages == len(at.theirs.live) - len(at.ours.live) else None


@rule("d")
def reloaded(at: Place) -> Taken | None:
    """The kernel frees its root at guest entry and loads another, as a page of it was zapped."""
    return _reloads(at, "d")


@rule("e")
def reloaded_whole(at: Place) -> Taken | None:
    """The same, though nothing below its root was zapped: another vCPU's was meant, or that of its other MMU."""
    return _reloads(at, "e")


def _reloads(at: Place, letter: str) -> Taken | None:
    """What the kernel does about a root that it frees and this VM keeps. Previous roots may be freed by both."""
    if not isinstance(at.given, Enter) or at.keeps_obsolete:
        return None
    if isinstance(at.k, e.FreeRoots):
        both = isinstance(at.s, e.FreeRoots) and at.k.roots & 1 and at.k.roots ^ at.s.roots == 1
        if (isinstance(at.s, e.FreeRoots) and not both) or letter != ("e" if at.whole[:1] == [True] else "d"):
            return None
        at.reloading = at.parting.forgotten = letter
        return BOTH if both else THEIRS
    return THEIRS if at.reloading == letter and isinstance(at.k, LOADS) else None


@rule("d")
def known_mmio(at: Place) -> Taken | None:
    """What KVM knows of MMIO it forgets when it loads a root; ours is loaded still, and it need not look at the mark."""
    return _looks_again(at, "d")


@rule("e")
def known_mmio_of_a_whole_root(at: Place) -> Taken | None:
    """The same, where nothing below that root was zapped."""
    return _looks_again(at, "e")


def _looks_again(at: Place, letter: str) -> Taken | None:
    """The kernel alone looks at a mark that is in force. That ours then emulates, too, its answer says."""
    if at.parting.forgotten != letter or not isinstance(at.given, Fault) or not at.given.code & RSVD:
        return None
    if any(isinstance(event, MARKS) for event in at.engine.ahead):
        return None
    in_force = isinstance(at.k, e.HandleMmioPageFault) or (isinstance(at.k, e.CheckMmioSpte) and at.k.kvm_gen == at.k.spte_gen)
    return THEIRS if in_force else None


# --- c: a PDPTE that names no memory


@rule("c")
def loaded_all_the_same(at: Place) -> Taken | None:
    """The kernel found no root to load; ours waits for the PDPTE to be used."""
    if at.kernel_shuts_down and at.k is None and isinstance(at.s, e.SyncRoots | e.SyncPage | e.LoadPgd):
        return OURS
    return None


@rule("c")
def freed_alone(at: Place) -> Taken | None:
    """A root goes that the kernel does not have."""
    return OURS if isinstance(at.s, e.FreeRoots) and at.s.roots == 1 and not at.kernel_has_root else None


# --- g: what follows


@rule("g")
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


@rule("g")
def recycled(at: Place) -> Taken | None:
    """One of the two is short of pages sooner than the other, as level-2 pages are made and freed at other times."""
    if at.recycling and isinstance(at.k, e.ZapOldest):
        return THEIRS
    return OURS if at.recycling and isinstance(at.s, e.ZapOldest) else None


@rule("g")
def met_other_tables(at: Place) -> Taken | None:
    """A fault or INVLPG on an address whose way through the tables, or whose page's shadows, were other ones before it."""
    if not at.parted or not isinstance(at.given, Fault | Invlpg):
        return None
    if isinstance(at.k, WALKS) and not at.ours_walks:
        return THEIRS
    if isinstance(at.s, WALKS) and not at.theirs_walk:
        return OURS
    taken = _next_fix(at)
    if taken is not None and taken.special and isinstance(at.s, e.GetPage) and key_of(at.s).level == 2 and at.s.root_count:
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


@rule("g")
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


@rule("g")
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


@rule("g")
def synced_before(at: Place) -> Taken | None:
    """The kernel syncs a table that ours has synced before, or has not."""
    if isinstance(at.k, e.SyncPage) and key_of(at.k) not in at.ours.unsync:
        at.part(at.k)
        return THEIRS
    return None


@rule("g")
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
