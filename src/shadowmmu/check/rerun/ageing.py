# SPDX-License-Identifier: GPL-2.0-only
"""When the captured host looked which of its pages are in use (kvm_age_hva), which clears A: a rerun does it where it was done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from shadowmmu.captures.validate import AGED
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent, Marker

GUEST = "G "


class Aged(NamedTuple):
    said: int
    """How often the guest had said something, and how many of its faults had been served."""
    faults: int
    rip: int
    """Where the guest then went on."""
    start: int
    end: int
    """Of the VMM's memory."""


class Ageing:
    """Of one rerun. `age(start, end)` does it."""

    def __init__(self, events: Sequence[AnyEvent], age: Callable[[int, int], None]) -> None:
        self._to_come = deque(_aged(events))
        self._age = age

    def enters(self, said: int, faults: int, rip: int) -> int | None:
        """The guest is to be entered: age what is due. Where it is to stop for what comes next; None: nowhere."""
        while self._to_come:
            next_ = self._to_come[0]
            if next_.said > said or next_.faults > faults:
                return None
            if (next_.said, next_.faults) == (said, faults) and next_.rip != rip:
                return next_.rip
            self._do()
        return None

    def passes(self, said: int, faults: int) -> None:
        """The guest says something, or a fault of its is served: all that was done before it is due."""
        while self._to_come and self._to_come[0].said <= said and self._to_come[0].faults <= faults:
            self._do()

    def _do(self) -> None:
        aged = self._to_come.popleft()
        self._age(aged.start, aged.end)


def _aged(events: Sequence[AnyEvent]) -> Iterator[Aged]:
    """In order; what is behind the last guest entry shows in nothing."""
    said = faults = 0
    waiting: list[tuple[int, int, int, int]] = []
    for event in events:
        if isinstance(event, Marker):
            said += event.text.startswith(GUEST)
        elif isinstance(event, e.MmuPageFault):
            faults += 1
        elif isinstance(event, e.Other) and event.ev == AGED:
            waiting.append((said, faults, int(event.fields["start"]), int(event.fields["end"])))
        elif isinstance(event, e.VmEntry):
            yield from (Aged(before, served, int(event.rip), start, end) for before, served, start, end in waiting)
            waiting.clear()
