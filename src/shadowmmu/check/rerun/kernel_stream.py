# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's side of a rerun: what of a capture the machine must do as well, cut where the guest says something."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from shadowmmu.captures.capture import Capture
from shadowmmu.check.compare.ignore import INPUTS, NOISE, is_no_deed
from shadowmmu.check.rerun.kvm_witness import TOLD_EXITS
from shadowmmu.engine.arena.role import Role
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent, Marker
from shadowmmu.trace.fields import Word
from shadowmmu.trace.forms import FORMS
from shadowmmu.x86.vmcb import SvmExit


class Compared(NamedTuple):
    """An event of a capture that the machine must do."""

    at: int
    """Which event of the capture, from 0."""
    event: AnyEvent
    skip: frozenset[str]
    """Fields that are not looked at."""


GUEST, DIRTY_PAGE, RUN, CLOSING, SHUTDOWN = "G ", "H dirty ", "H run", "H closing", "H exit_reason=8"
_ASKED_HERE = e.PageFault
"""What a replay is given, a rerun must bring about: this, and exits."""
_OF_THE_TABLES = (
    e.PageFault, e.MmuPageFault, e.MmuPageFaultRet, e.SetSpte, e.SpteRequested, e.FastPageFault, e.MarkMmioSpte, e.HandleMmioPageFault,
    e.CheckMmioSpte,
)  # fmt: skip
"""Events of the tables in use: none of ours if they are the TDP MMU's."""
DIRECT, GUEST_MODE = int(Role.DIRECT), int(Role.GUEST_MODE)
_USED_PAGES, _ROOT, _NOTHING = frozenset({"mmu_used_pages"}), frozenset({"root"}), frozenset[str]()


class Filter:
    """Which events of one side are compared, in their order.

    `guest_view`: only those that the guest can notice. `foreign_l1`: the kernel ran L1 on tables of the TDP MMU, which is
    another system than the shadow MMU: what concerns them is left out.
    """

    def __init__(self, guest_view: bool, foreign_l1: bool, kernel: str) -> None:
        self._guest_view, self._foreign_l1 = guest_view, foreign_l1
        self._in_l2 = False
        self._form = FORMS[kernel]

    def passes(self, event: AnyEvent) -> bool:
        if isinstance(event, e.Exit):
            self._in_l2 = self._in_l2 or event.exit_reason == int(SvmExit.VMRUN)
            return event.exit_reason in TOLD_EXITS
        if isinstance(event, e.NestedVmexitInject):
            self._in_l2 = False
            return True
        if isinstance(event, Marker):
            return event.text.startswith((GUEST, DIRTY_PAGE, SHUTDOWN))
        if self._guest_view:
            return isinstance(event, e.InjException) and not event.reinjected
        if is_no_deed(event, self._form):
            return False
        if self._foreign_l1 and self._is_foreign(event):
            return False
        return isinstance(event, _ASKED_HERE) or (type(event) not in INPUTS and type(event) not in NOISE)

    def _is_foreign(self, event: AnyEvent) -> bool:
        if isinstance(event, e.PageEvent):
            return bool(event.role & DIRECT) and not event.role & GUEST_MODE
        again = isinstance(event, e.InjException) and bool(event.reinjected)
        return not self._in_l2 and (again or isinstance(event, _OF_THE_TABLES))

    def skipped(self, event: AnyEvent) -> frozenset[str]:
        """Fields of a compared event that L1's foreign tables change."""
        if self._foreign_l1 and isinstance(event, e.ZapAllFast):
            return _USED_PAGES
        return _ROOT if self._foreign_l1 and not self._in_l2 and isinstance(event, e.LoadPgd) else _NOTHING


class Stream:
    """The compared events of a capture from the guest's start to its end."""

    def __init__(self, capture: Capture, guest_view: bool) -> None:
        self.guest_view = guest_view
        self.recycled = False
        """The kernel has zapped its oldest pages, which are others than those of a VM with other roots."""
        self._filter = Filter(guest_view, capture.setup.tdp_mmu, capture.setup.series)
        self._events = self._compared(capture)

    def next_segment(self) -> list[Compared]:
        """The events up to the guest's next line, it included, or up to the end."""
        segment: list[Compared] = []
        for compared in self._events:
            segment.append(compared)
            if isinstance(compared.event, Marker) and compared.event.text.startswith(GUEST):
                break
        return segment

    def _compared(self, capture: Capture) -> Iterator[Compared]:
        for at, event in _without_repeated_injections(_without_emulated_returns(capture)):
            self.recycled = self.recycled or isinstance(event, e.ZapOldest)
            if self._filter.passes(event):
                yield Compared(at, event, self._filter.skipped(event))


def _of_the_run(capture: Capture) -> Iterator[tuple[int, AnyEvent]]:
    running = False
    for at, event in enumerate(capture.events):
        if isinstance(event, Marker) and event.text.startswith(CLOSING):
            return
        running = running or (isinstance(event, Marker) and event.text.startswith(RUN))
        if running:
            yield at, _as_told_here(event)


def _as_told_here(event: AnyEvent) -> AnyEvent:
    """KVM asks for writes of CR0 twice. The captured CPU looks at the selective intercept first, ours at the other."""
    if isinstance(event, e.Exit) and event.exit_reason == int(SvmExit.CR0_SELECTIVE):
        return msgspec.structs.replace(event, exit_reason=Word(SvmExit.CR_WRITE))
    return event


def _without_emulated_returns(capture: Capture) -> Iterator[tuple[int, AnyEvent]]:
    """A fault whose instruction is emulated returns what the emulator says, not the MMU: that return is left out."""
    in_fault = emulated = False
    for at, event in _of_the_run(capture):
        if isinstance(event, e.MmuPageFault):
            in_fault, emulated = True, False
        elif isinstance(event, e.EmulateInsn):
            emulated = in_fault
        elif isinstance(event, e.MmuPageFaultRet):
            in_fault = False
            if emulated:
                continue
        yield at, event


def _without_repeated_injections(events: Iterable[tuple[int, AnyEvent]]) -> Iterator[tuple[int, AnyEvent]]:
    """An exception is injected on the way into the guest. If the host has something to do just then (an interrupt, another
    task), KVM turns back and injects it once more on its next way there (`cancel_injection`): that is told once."""
    injected = False
    for at, event in events:
        if isinstance(event, e.InjException):
            if injected and event.reinjected:
                continue
            injected = True
        elif isinstance(event, e.VmEntry):
            injected = False
        yield at, event
