"""The kernel's side of a rerun: what of a capture the machine must do as well, cut where the guest says something."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from shadowmmu.check.replay.capture import Capture
from shadowmmu.check.replay.ignore import ALL_ROOTS, INPUTS, NOISE
from shadowmmu.check.rerun.processor import TOLD_EXITS
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent, Marker
from shadowmmu.trace.fields import Word
from shadowmmu.x86.vmcb import SvmExit

Numbered = tuple[int, AnyEvent]
"""(which event of the capture, from 0; the event)"""
GUEST, DIRTY_PAGE, RUN, CLOSING, SHUTDOWN = "G ", "H dirty ", "H run", "H closing", "H exit_reason=8"
_ASKED_HERE = (e.PageFault, e.Exit, e.NestedVmexitInject)
"""What a replay is given, a rerun must bring about."""


class Stream:
    """The compared events from the guest's start to its end. `guest_view`: only those that the guest can notice."""

    def __init__(self, capture: Capture, guest_view: bool) -> None:
        self.guest_view = guest_view
        self.recycled = False
        """The kernel has zapped its oldest pages, which are others than those of a VM with special roots."""
        self._events = self._compared(capture)

    def next_segment(self) -> list[Numbered]:
        """The events up to the guest's next line, it included, or up to the end."""
        segment: list[Numbered] = []
        for numbered in self._events:
            segment.append(numbered)
            if isinstance(numbered[1], Marker) and numbered[1].text.startswith(GUEST):
                break
        return segment

    def is_compared(self, event: AnyEvent) -> bool:
        """Whether both sides must have an event."""
        if isinstance(event, Marker):
            return event.text.startswith((GUEST, DIRTY_PAGE, SHUTDOWN))
        if isinstance(event, e.Exit):
            return event.exit_reason in TOLD_EXITS
        if self.guest_view:
            return isinstance(event, e.InjException) and not event.reinjected
        if isinstance(event, e.FreeRoots):
            return event.roots != ALL_ROOTS
        return isinstance(event, _ASKED_HERE) or (type(event) not in INPUTS and type(event) not in NOISE)

    def _compared(self, capture: Capture) -> Iterator[Numbered]:
        for at, event in _without_emulated_returns(capture):
            self.recycled = self.recycled or isinstance(event, e.ZapOldest)
            if self.is_compared(event):
                yield at, event


def _of_the_run(capture: Capture) -> Iterator[Numbered]:
    running = False
    for at, event in enumerate(capture.events):
        if isinstance(event, Marker) and event.text.startswith(CLOSING):
            return
        running = running or (isinstance(event, Marker) and event.text.startswith(RUN))
        if running:
            yield at, _as_told_here(event)


def _as_told_here(event: AnyEvent) -> AnyEvent:
    """KVM asks for writes of CR0 twice. The captured CPU looks at the selective intercept first, ours at the other."""
    if isinstance(event, e.Exit) and event.exit_reason == SvmExit.CR0_SELECTIVE:
        return msgspec.structs.replace(event, exit_reason=Word(SvmExit.CR_WRITE))
    return event


def _without_emulated_returns(capture: Capture) -> Iterator[Numbered]:
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
