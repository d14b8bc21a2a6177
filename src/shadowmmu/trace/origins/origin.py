# SPDX-License-Identifier: GPL-2.0-only
"""A row of the table of origins, and what is looked at to choose it: the events around one event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent

UNRELATED = (e.GuestTlbFlush, e.TdpMmuSpteChanged, e.MmuUnload, e.Other)
"""Kinds that a kernel strews in between: they are no part of what leads to an event."""
WINDOW = 48
"""Events before one that its rule may ask about, where not the whole stream is kept."""


class Origin(msgspec.Struct, frozen=True):
    """Which rule makes an event in one situation."""

    event: str
    """The kernel's name of the event."""
    situation: str
    """When it applies; empty: always."""
    emitter: str
    """`module.function` of the engine that tells of it; empty: the engine does not."""
    decider: str
    """`module.function` of the engine whose rule this is: it leads to the emitter, is asked on the way to it, or is it."""
    kernel: str
    """The function of Linux 6.1 with the same rule; empty: it has none, as of special pages."""
    rule: str
    """The rule in a sentence."""
    ids: tuple[str, ...] = ()
    """Its numbers in docs/rules.md, if it has any."""


class Around:
    """One event with those before and behind it in the same stream."""

    __slots__ = ("after", "before", "event", "in_l2", "nested_paging")

    def __init__(
        self,
        event: AnyEvent,
        before: Sequence[AnyEvent],
        after: Sequence[AnyEvent] = (),
        nested_paging: bool = True,
        in_l2: bool | None = None,
    ) -> None:
        self.event: Any = event
        """A case is asked only about events of its own kind, whose fields it then knows."""
        self.before = before
        self.after = after
        self.nested_paging = nested_paging
        """The host has nested paging on, so that L1 may use it for L2."""
        self.in_l2 = in_l2
        """Whether an L2 is running, where who asks has followed it; None: the events before tell."""

    def back(self) -> Iterator[AnyEvent]:
        """The events before, the nearest first."""
        return (event for event in reversed(self.before) if type(event) not in UNRELATED)

    def cause(self, *passed: type[AnyEvent]) -> AnyEvent | None:
        """The nearest event before that is none of these kinds. Kinds have no subclasses, and to ask an event's type is quick."""
        skipped = UNRELATED + passed
        for event in reversed(self.before):
            if type(event) not in skipped:
                return event
        return None

    def last(self, *kinds: type[AnyEvent]) -> AnyEvent | None:
        """The nearest event before that is of one of these kinds."""
        for event in reversed(self.before):
            if type(event) in kinds:
                return event
        return None


class Case(msgspec.Struct, frozen=True):
    """A row, the kind of its events, and how to tell that it is theirs."""

    kind: type[AnyEvent]
    origin: Origin
    applies: Callable[[Around], bool]


def always(_: Around) -> bool:
    return True


def case(
    kind: type[AnyEvent],
    situation: str,
    emitter: str,
    kernel: str,
    rule: str,
    *,
    decider: str = "",
    ids: str = "",
    when: Callable[[Around], bool] = always,
) -> Case:
    """A case of the table; `ids` are separated by blanks, and the emitter decides unless another does."""
    name = str(kind.__struct_config__.tag)
    return Case(kind, Origin(name, situation, emitter, decider or emitter, kernel, rule, tuple(ids.split())), when)
