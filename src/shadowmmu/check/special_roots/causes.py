# SPDX-License-Identifier: GPL-2.0-only
"""Letters a to f: what roots of special pages do otherwise, by themselves."""

from __future__ import annotations

from typing import TypeGuard

from shadowmmu.check.replayed.inputs import Enter, Fault
from shadowmmu.check.special_roots.align import BOTH, OURS, THEIRS, Place, Taken
from shadowmmu.check.special_roots.page_census import INVALID, key_of
from shadowmmu.check.special_roots.rule import ZAPS, Rules, leaves_unsync
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.x86.pferr import Pferr

CAUSES = Rules()
LOADS = (e.PrepareZapPage, e.MmuLoad, e.GetPage, e.SyncRoots, e.SyncPage, e.MarkMmioSpte, e.LoadPgd)
"""What a reload of a root tells."""
MARKS = (e.MarkMmioSpte, e.CheckMmioSpte, e.HandleMmioPageFault)
RSVD = int(Pferr.RSVD)


# --- f: the special page itself


@CAUSES.under("f")
def special_page(at: Place) -> Taken | None:
    """A special page is made or freed."""
    return OURS if isinstance(at.s, e.SpecialAlloc | e.SpecialFree) else None


# --- a: level-2 pages when they are touched


def _level_2(s: AnyEvent | None) -> TypeGuard[e.GetPage]:
    """A level-2 page is looked up, which no root of ours counts (b)."""
    return isinstance(s, e.GetPage) and key_of(s).level == 2 and not s.root_count


@CAUSES.under("a")
def touched(at: Place) -> Taken | None:
    """A fault looks up the level-2 page that it needs below a special page."""
    if not _level_2(at.s) or not isinstance(at.given, Fault) or leaves_unsync(at, at.s):
        return None
    if at.is_under_special(at.s.spt):
        at.linked = True
        at.ours.unvisited.discard(key_of(at.s))
        at.theirs.unvisited.add(key_of(at.s))
        return OURS
    return None


@CAUSES.under("a")
def loaded_too(at: Place) -> Taken | None:
    """A root that is prefilled leads from its load on to a level-2 page that is there; the kernel makes those that are not."""
    if not at.loading or not _level_2(at.s) or at.s.created:
        return None
    if isinstance(at.k, e.GetPage) and not set(at.differing()) - {"root_count", "created"}:
        return BOTH
    return OURS if at.kernel_shuts_down else None


@CAUSES.under("a")
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


def _is_looked_up_later(at: Place, k: e.GetPage) -> bool:
    return any(isinstance(s, e.GetPage) and key_of(s) == key_of(k) for s in at.engine.ahead[1:])


@CAUSES.under("a")
def loaded(at: Place) -> Taken | None:
    """The kernel looks up a level-2 page, to make a root of it; this VM does not, or has done so for this one already."""
    if at.loading and isinstance(at.k, e.GetPage) and key_of(at.k).level == 2 and not _is_looked_up_later(at, at.k):
        at.ours.unvisited.add(key_of(at.k))
        at.theirs.unvisited.discard(key_of(at.k))
        return THEIRS
    return None


@CAUSES.under("a")
def zapped_at_the_load(at: Place) -> Taken | None:
    """To look a level-2 page up, the kernel zaps unsync level-1 pages of the same table; ours does when it looks it up."""
    k = at.k
    if not at.loading or not isinstance(k, ZAPS) or not k.unsync or key_of(k).level != 1:
        return None
    looked_up = next((event for event in at.kernel.ahead if isinstance(event, e.GetPage)), None)
    return THEIRS if looked_up is not None and key_of(looked_up).level == 2 and looked_up.gfn == k.gfn else None


@CAUSES.under("a")
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


@CAUSES.under("a")
def synced_when_linked(at: Place) -> Taken | None:
    """A table that was left unsync is synced when it is linked, or when a root leads there again."""
    if isinstance(at.s, e.SyncPage) and (at.linked or (isinstance(at.given, Enter) and key_of(at.s) not in at.theirs.unsync)):
        at.part(at.s)
        return OURS
    return None


@CAUSES.under("a")
def code_without_present(at: Place) -> Taken | None:
    """The entry of a special page is not linked: the fault's code has neither P nor RSVD."""
    fields = at.differing()
    if not at.unlinked or fields not in (["err"], ["pferr"]):
        return None
    return BOTH if not (getattr(at.k, fields[0]) ^ getattr(at.s, fields[0])) & ~9 else None


@CAUSES.under("a")
def refused_before_emulation(at: Place) -> Taken | None:
    """There a fault walks the guest's tables, which refuse it, where the kernel emulates by a mark of MMIO, and then finds the same."""
    if not at.unlinked or at.theirs_walk or not isinstance(at.given, Fault) or not at.given.code & RSVD:
        return None
    return OURS if isinstance(at.s, e.WalkerError | e.InvalidateGva) else None


# --- b, d: a level-2 page is no root


@CAUSES.under("b")
def root_count(at: Place) -> Taken | None:
    """The same page, which a root of the kernel's holds and none of ours."""
    if not isinstance(at.k, e.PageEvent) or at.differing() != ["root_count"]:
        return None
    assert isinstance(at.s, e.PageEvent)
    return BOTH if key_of(at.k).level == 2 and not at.s.root_count else None


@CAUSES.under("b")
def invalid_freed(at: Place) -> Taken | None:
    """The kernel frees a root's page that was zapped before; ours is gone since."""
    k = at.k
    return THEIRS if isinstance(k, e.PrepareZapPage) and k.role & INVALID and key_of(k).level == 2 else None


@CAUSES.under("b")
def pages_in_use(at: Place) -> Taken | None:
    """The number of pages in use, which the events of both tell."""
    if not isinstance(at.k, e.ZapAllFast) or not isinstance(at.s, e.ZapAllFast) or at.differing() != ["mmu_used_pages"]:
        return None
    return BOTH if at.k.mmu_used_pages - at.s.mmu_used_pages == len(at.theirs.live) - len(at.ours.live) else None


@CAUSES.under("d")
def reloaded(at: Place) -> Taken | None:
    """The kernel frees its root at guest entry and loads another, as a page of it was zapped."""
    return _reloads(at, "d")


@CAUSES.under("e")
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


@CAUSES.under("d")
def known_mmio(at: Place) -> Taken | None:
    """What KVM knows of MMIO it forgets when it loads a root; ours is loaded still, and it need not look at the mark."""
    return _looks_again(at, "d")


@CAUSES.under("e")
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


@CAUSES.under("c")
def loaded_all_the_same(at: Place) -> Taken | None:
    """The kernel found no root to load; ours waits for the PDPTE to be used."""
    if at.kernel_shuts_down and at.k is None and isinstance(at.s, e.SyncRoots | e.SyncPage | e.LoadPgd):
        return OURS
    return None


@CAUSES.under("c")
def freed_alone(at: Place) -> Taken | None:
    """A root goes that the kernel does not have."""
    return OURS if isinstance(at.s, e.FreeRoots) and at.s.roots == 1 and not at.kernel_has_root else None
