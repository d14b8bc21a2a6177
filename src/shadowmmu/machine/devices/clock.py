# SPDX-License-Identifier: GPL-2.0-only
"""Virtual time: it counts what the guest does and never looks at the host's clock, so every run repeats to the bit.

One tick is one nanosecond, one count of the time-stamp counter and one of the local APIC timer's bus clock. Every
instruction takes one tick and every exit some more. Where all vCPUs sleep, time goes on at once to the next timer.
"""

from collections.abc import Callable

TICKS_PER_SECOND = 1_000_000_000
TICKS_PER_EXIT = 1000


class Timer:
    """Calls `expire` once when its deadline has come; it may be armed again there."""

    def __init__(self, clock: "Clock", expire: Callable[[], None]) -> None:
        self._clock, self.expire = clock, expire
        self.deadline: int | None = None

    def arm(self, deadline: int | None) -> None:
        """None: it rests."""
        self.deadline = deadline
        self._clock.rearmed()


class Clock:
    """`on_change` hears that the next deadline may be another one: a CPU that runs must be told. `on_spend` hears of ticks that pass
    beside a CPU's own while it runs."""

    def __init__(self, on_change: Callable[[], None] = lambda: None, on_spend: Callable[[int], None] = lambda ticks: None) -> None:
        self._on_change, self._on_spend = on_change, on_spend
        self._apart = 0
        self._counters: list[Callable[[], int]] = []
        self._timers: list[Timer] = []
        self.next_deadline: int | None = None

    @property
    def now(self) -> int:
        """Ticks since the machine was made."""
        return self._apart + sum(counter() for counter in self._counters)

    def count_too(self, counter: Callable[[], int]) -> None:
        """Ticks of a CPU, which counts by itself while it runs."""
        self._counters.append(counter)

    def advance(self, ticks: int) -> None:
        """Time that passes beside that of the CPUs."""
        self._apart += ticks

    def spend(self, ticks: int) -> None:
        """The same while a CPU runs, which is told if a timer is due by that."""
        self._apart += ticks
        self._on_spend(ticks)
        if self.next_deadline is not None and self.next_deadline <= self.now:
            self._on_change()

    def timer(self, expire: Callable[[], None]) -> Timer:
        """A new one, at rest."""
        timer = Timer(self, expire)
        self._timers.append(timer)
        return timer

    def rearmed(self) -> None:
        """A timer has another deadline."""
        self.next_deadline = min((timer.deadline for timer in self._timers if timer.deadline is not None), default=None)
        self._on_change()

    def expire_due(self) -> None:
        """Let the timers go off whose time has come, in the order of their deadlines, then of their making."""
        while self.next_deadline is not None and self.next_deadline <= self.now:
            due = min((timer for timer in self._timers if timer.deadline is not None), key=lambda timer: timer.deadline or 0)
            due.deadline = None
            due.expire()
            self.rearmed()

    def warp(self) -> bool:
        """Go on to the next deadline; False: there is none."""
        if self.next_deadline is None:
            return False
        self._apart += max(0, self.next_deadline - self.now)
        self.expire_due()
        return True
