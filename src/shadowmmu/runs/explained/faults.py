# SPDX-License-Identifier: GPL-2.0-only
"""One fault with all that it caused, and what came of it, in the words of the path that it took."""

from __future__ import annotations

from collections.abc import Callable
from errno import EFAULT
from typing import Any

import msgspec

from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.origins.origin import Origin

GUESTS_OWN = "the guest's own: its tables do not allow the access, and it gets a #PF"
L1S_OWN = "L1's own: its nested tables do not allow the access, and it gets its L2's #VMEXIT"
FIXED = "fixed: an entry was set"
FAST = "fixed without the lock: only dirty logging had taken W"
SPURIOUS = "spurious: the entry allows the access already"
MMIO = "no memory there: the access is emulated as MMIO"
UNPROTECTED = "a write to a shadowed table: it is shadowed no longer, and the guest tries again"
REMEMBERED = "MMIO that the vCPU remembers: the access is emulated (mmio_info_in_cache)"
EMULATED = "emulated: a write to a table that is shadowed"
SHADOWED = "no entry was set: the frame is a shadowed table, or the entry was right"
NOTHING = "nothing is told: no entry was requested"
FAILED = "the host cannot give the page: KVM_RUN fails with EFAULT"
CUT = "the trace ends, or has a gap, before the fault does"
IDLE = (SPURIOUS, NOTHING)
"""What comes of a fault that had nothing to fix."""


MOST_STEPS = 24
NESTED = 32
"""From this bit on an error code tells where a nested fault was met."""


class Fault(msgspec.Struct, gc=False):
    """A fault, from its exit to the next entry. `code`: the error code; -1: only the walk is in the trace."""

    number: int
    line: int
    address: int
    code: int
    told: bool = True
    """An exit or a probe began it, not a walk."""
    walked: int = 0
    """Walks; `levels` entries were read in the first of them."""
    levels: int = 0
    refused: int = -1
    why: str = ""
    """What in the guest's entries refused it."""
    requested: int = 0
    sets: int = 0
    leaf: tuple[int, int, int] | None = None
    """gfn, level and value of the entry that was wanted."""
    made: int = 0
    found: int = 0
    zapped: int = 0
    synced: int = 0
    unsynced: int = 0
    fast: str = ""
    mmio: bool = False
    emulated: bool = False
    unprotected: bool = False
    reserved: bool = False
    """The CPU met reserved bits: a mark of MMIO, if the shadow is right."""
    failed: bool = False
    cut: bool = False
    entered: bool = False
    """The MMU was called for it."""
    events: int = 0
    steps: list[tuple[int, AnyEvent, Origin]] = []
    """The first of its events, with their rules."""

    @property
    def outcome(self) -> str:
        if self.fast:
            return self.fast
        if self.refused >= 0 and not self.requested:
            return L1S_OWN if self.code >> NESTED > 0 else GUESTS_OWN
        if self.mmio:
            return MMIO
        if self.unprotected:
            return UNPROTECTED
        if self.emulated:
            return EMULATED
        if self.sets:
            return FIXED
        if self.failed:
            return FAILED
        if self.cut:
            return CUT
        if self.reserved and not self.requested:
            return REMEMBERED
        return SHADOWED if self.requested else NOTHING

    @property
    def path(self) -> str:
        """The stations, without numbers that differ from one such fault to the next."""
        walk = f"walk of {self.levels} level{'s' if self.levels > 1 else ''}" if self.levels else "walk"
        told = (
            (self.walked, walk), (self.found, "pages found"),
            (self.made, "pages made"), (self.synced, "pages synced"), (self.zapped, "pages zapped"), (self.unsynced, "tables unsync"),
            (self.requested, "entry requested"), (self.sets, "entries set"),
        )  # fmt: skip
        return ", ".join(words for count, words in told if count) or "no walk"


def _walk(fault: Fault, _: e.Walk) -> None:
    fault.walked += 1


def _element(fault: Fault, _: e.PagingElement) -> None:
    fault.levels += fault.walked == 1


def _refused(fault: Fault, event: e.WalkerError) -> None:
    fault.refused = int(event.pferr)


def _requested(fault: Fault, _: e.SpteRequested) -> None:
    fault.requested += 1


def _set(fault: Fault, event: e.SetSpte) -> None:
    fault.sets += 1
    if fault.leaf is None:
        fault.leaf = int(event.gfn), int(event.level), int(event.spte)


def _got(fault: Fault, event: e.GetPage) -> None:
    if event.created:
        fault.made += 1
    else:
        fault.found += 1


def _zapped(fault: Fault, _: e.PrepareZapPage) -> None:
    fault.zapped += 1


def _synced(fault: Fault, _: e.SyncPage) -> None:
    fault.synced += 1


def _unsynced(fault: Fault, _: e.UnsyncPage) -> None:
    fault.unsynced += 1


def _fast(fault: Fault, event: e.FastPageFault) -> None:
    fault.fast = SPURIOUS if event.spurious else FAST if event.fixed else ""


def _mmio(fault: Fault, _: AnyEvent) -> None:
    fault.mmio = True


def _unprotected(fault: Fault, _: AnyEvent) -> None:
    fault.unprotected = True


def _emulated(fault: Fault, _: AnyEvent) -> None:
    fault.emulated = True


def _other(fault: Fault, event: e.Other) -> None:
    fault.failed |= event.fields.get("errno") == EFAULT


CHANGES: dict[type[AnyEvent], Callable[[Fault, Any], None]] = {
    e.Walk: _walk, e.PagingElement: _element, e.WalkerError: _refused, e.SpteRequested: _requested, e.SetSpte: _set, e.GetPage: _got,
    e.PrepareZapPage: _zapped, e.SyncPage: _synced, e.UnsyncPage: _unsynced, e.FastPageFault: _fast, e.MarkMmioSpte: _mmio,
    e.HandleMmioPageFault: _mmio, e.EmulateInsn: _emulated, e.PteWrite: _emulated, e.UnprotectPage: _unprotected,
    e.UnprotectGfn: _unprotected, e.Other: _other,
}  # fmt: skip
"""What each kind of event adds to the fault that is under way."""
