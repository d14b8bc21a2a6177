# SPDX-License-Identifier: GPL-2.0-only
"""Compares two events: plain fields must be equal, host addresses equal up to a renaming that is kept."""

from __future__ import annotations

from typing import get_type_hints

from shadowmmu.check.compare.ignore import CPU_BITS, FIELDS
from shadowmmu.check.compare.rename import Renaming
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.fields import FRAME_BITS, FRAME_ERROR, NO_SLOT, Entry, Frame, Leaf, Table
from shadowmmu.trace.forms import CURRENT_ONLY

PAGE = 0xFFF
CURRENT_ROOT = (1 << 64) - 1
_HINTS = {cls: get_type_hints(cls) for cls in AnyEvent.__args__}


class Matcher:
    """The renamings of one replay, and the comparison under them."""

    def __init__(self) -> None:
        self.tables = Renaming()
        """Host addresses of shadow tables."""
        self.frames = Renaming()
        """Host page frames of guest memory."""

    def differences(self, kernel: AnyEvent, engine: AnyEvent, skip: frozenset[str] = frozenset()) -> list[str]:
        """Names of the fields that differ; `skip` are not looked at. Kinds that differ: ["event"]."""
        if type(kernel) is not type(engine):
            return ["event"]
        found = []
        for name, kind in _HINTS[type(kernel)].items():
            if name in FIELDS or name in skip:
                continue
            if not self._same(kind, kernel, engine, name):
                found.append(name)
        return found

    def _same(self, kind: object, kernel: AnyEvent, engine: AnyEvent, name: str) -> bool:
        theirs, ours = getattr(kernel, name), getattr(engine, name)
        if kind is Table:
            return self.table(theirs, ours)
        if kind is Entry:
            return (theirs & PAGE) == (ours & PAGE) and self.table(theirs, ours)
        if kind is Frame:
            return self.frame(theirs, ours)
        if kind is Leaf:
            return self.leaf(theirs, ours, CPU_BITS if type(kernel) is e.FastPageFault else 0)
        if name == "val" and isinstance(kernel, e.PteWrite):
            mask = (1 << 8 * min(kernel.bytes, 8)) - 1
            return bool((theirs ^ ours) & mask == 0)
        return bool(theirs == ours)

    def table(self, kernel: int, engine: int) -> bool:
        if kernel == CURRENT_ONLY:
            return engine != CURRENT_ROOT
        if kernel == CURRENT_ROOT or engine == CURRENT_ROOT:
            return kernel == engine
        return self.tables.agree(kernel & ~PAGE, engine & ~PAGE)

    def frame(self, kernel: int, engine: int) -> bool:
        """Error frames are equal by class: no memslot, or an error."""
        if kernel >= FRAME_ERROR or engine >= FRAME_ERROR:
            return kernel >= FRAME_ERROR and engine >= FRAME_ERROR and (kernel & NO_SLOT) == (engine & NO_SLOT)
        return self.frames.agree(kernel, engine)

    def leaf(self, kernel: int, engine: int, ignore: int = 0, ignore_in_marks: int = 0) -> bool:
        """A last-level entry: flags plain, but for `ignore`; frame renamed. Without bit 11 it is nothing, or a mark of MMIO."""
        if not kernel >> 11 & 1:
            return not (kernel ^ engine) & ~ignore_in_marks
        if (kernel ^ engine) & ~FRAME_BITS & ~ignore:
            return False
        return self.frames.agree((kernel & FRAME_BITS) >> 12, (engine & FRAME_BITS) >> 12)

    def follow(self, engine: AnyEvent) -> None:
        """Shadow pages are born and die: their addresses then mean something else."""
        born = isinstance(engine, e.GetPage) and engine.created
        died = isinstance(engine, e.PrepareZapPage) and not engine.root_count
        if isinstance(engine, e.SpecialAlloc | e.SpecialFree) or (isinstance(engine, e.PageEvent) and (born or died)):
            self.tables.forget(engine.spt)
