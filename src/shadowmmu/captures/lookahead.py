# SPDX-License-Identifier: GPL-2.0-only
"""What the capture tells later about the exit at hand: values of registers, and how the kernel went on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shadowmmu.captures.markers import parse
from shadowmmu.captures.validate import AGED
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.x86.msr import EFER
from shadowmmu.x86.vectors import GP
from shadowmmu.x86.vmcb import SvmExit

_OTHER_ENDS = (e.SpteRequested, e.WalkerError, e.HandleMmioPageFault, e.FastPageFault, e.UnprotectPage, e.EmulateInsn, e.PteWrite)
"""A fault with one of these was not broken off: it asked for an entry, was the guest's, or was emulated."""


def rest_of_exit(events: Sequence[AnyEvent], at: int) -> Iterator[AnyEvent]:
    """The events behind `at` until the guest runs again."""
    for i in range(at + 1, len(events)):
        event = events[i]
        if isinstance(event, e.VmEntry | e.Exit):
            return
        yield event


def efer_written(events: Sequence[AnyEvent], at: int) -> int | None:
    """What WRMSR gives EFER. kvm_msr comes behind the effects."""
    return next((ev.data for ev in rest_of_exit(events, at) if isinstance(ev, e.Msr) and ev.write and ev.ecx == EFER), None)


def pgd_loaded(events: Sequence[AnyEvent], at: int) -> int | None:
    """The CR3 that the kernel switches to."""
    return next((ev.pgd for ev in rest_of_exit(events, at) if isinstance(ev, e.NewPgd)), None)


def gets_gp(events: Sequence[AnyEvent], at: int) -> bool:
    """Whether the kernel gives the guest #GP."""
    return any(isinstance(ev, e.InjException) and ev.exception == GP for ev in rest_of_exit(events, at))


def goes_to_l1(events: Sequence[AnyEvent], at: int) -> bool:
    """Whether the kernel gives the exit of L2 to L1."""
    return any(isinstance(ev, e.NestedVmexitInject) for ev in rest_of_exit(events, at))


def synced_before_reschedule(events: Sequence[AnyEvent], at: int) -> int:
    """How many pages the kernel had synced below the table to be linked when another task wanted the CPU, and the fault at `at` was
    to be retried; 0: none did. Of that there is no event, but a fault that ends with a sync instead of asking for an entry."""
    synced = 0
    for event in rest_of_exit(events, at):
        if isinstance(event, e.GetPage):
            synced = 0
        elif isinstance(event, e.SyncPage):
            synced += 1
        elif isinstance(event, _OTHER_ENDS):
            return 0
        elif isinstance(event, e.MmuPageFaultRet):
            return synced
    return 0


def rescheduled_faults(events: Sequence[AnyEvent]) -> dict[int, int]:
    """Of the faults of a capture, counted from 1, those in which another task wanted the CPU: behind how many synced pages."""
    faults = (at for at, event in enumerate(events) if isinstance(event, e.MmuPageFault))
    return {number: synced for number, at in enumerate(faults, 1) if (synced := synced_before_reschedule(events, at))}


def dumped_while_aged(events: Sequence[AnyEvent]) -> frozenset[int]:
    """Of the guest's words those, by number, before which the host looked which of its pages are in use. The tables were dumped about
    then, and no event tells which came first."""
    found, aged = set[int](), False
    for event in events:
        if isinstance(event, e.Exit):
            aged = False
        elif isinstance(event, e.Other):
            aged = aged or event.ev == AGED
        elif isinstance(event, e.Marker) and aged and "seq" in (mark := parse(event)):
            found.add(mark["seq"])
    return frozenset(found)


def stops_in_handlers(events: Sequence[AnyEvent]) -> bool:
    """A guest that is stepped has stopped at a HLT that its VMM has put where a handler begins: it stops more often than it halts."""
    stops = sum(isinstance(event, e.Exit) and event.exit_reason == int(SvmExit.HLT) for event in events)
    halts = sum(isinstance(event, e.Marker) and parse(event).action == "hlt" for event in events)
    return stops > halts > 0
