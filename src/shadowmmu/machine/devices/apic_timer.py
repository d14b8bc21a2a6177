# SPDX-License-Identifier: GPL-2.0-only
"""The timer of a local APIC: one shot, periodic, or by a deadline of the time-stamp counter. Source: SDM vol. 3 section 11.5.4."""

from collections.abc import Callable
from enum import IntEnum

from shadowmmu.machine.devices.clock import Clock

LEAST_PERIOD = 200_000
"""Ticks between two periodic interrupts: with fewer a guest would do nothing but take them (KVM: min_timer_period_us)."""


class Mode(IntEnum):
    """Bits 18:17 of its LVT entry."""

    ONE_SHOT = 0
    PERIODIC = 1
    DEADLINE = 2


class ApicTimer:
    """`fire` is called when it goes off. Its bus clock is the machine's, divided as the guest says."""

    def __init__(self, clock: Clock, fire: Callable[[], None]) -> None:
        self._clock, self._fire = clock, fire
        self._timer = clock.timer(self._expire)
        self.mode = Mode.ONE_SHOT
        self.initial = self.divide_configuration = 0
        self._start = 0
        self.tsc_deadline = 0
        """MSR 6E0h; 0: no deadline."""

    def reset(self) -> None:
        self.__init__(self._clock, self._fire)  # type: ignore[misc]

    @property
    def _divisor(self) -> int:
        """1 to 128: bits 3, 1 and 0 count 2, 4, ... 128, 1."""
        code = self.divide_configuration & 3 | self.divide_configuration >> 1 & 4
        return 1 << (code + 1 & 7)

    @property
    def _period(self) -> int:
        period = self.initial * self._divisor
        return max(period, LEAST_PERIOD) if self.mode is Mode.PERIODIC else period

    def set_mode(self, mode: int) -> None:
        """A change between deadline mode and the others stops it."""
        if mode != self.mode and Mode.DEADLINE in (mode, self.mode):
            self.initial = self.tsc_deadline = 0
            self._timer.arm(None)
        self.mode = Mode(mode)

    def set_divide(self, configuration: int) -> None:
        """The count goes on from where it is."""
        left = self.current
        self.divide_configuration = configuration
        if left:
            self._start = self._clock.now - (self.initial - left) * self._divisor
            self._timer.arm(self._start + self._period)

    def set_initial(self, count: int) -> None:
        """Begin to count down."""
        if self.mode is Mode.DEADLINE:
            return
        self.initial = count
        self._start = self._clock.now
        self._timer.arm(self._start + self._period if count else None)

    def set_deadline(self, tsc: int, offset: int) -> None:
        """`offset`: what the guest's time-stamp counter has more than the clock."""
        if self.mode is not Mode.DEADLINE:
            return
        self.tsc_deadline = tsc
        self._timer.arm(tsc - offset if tsc else None)

    @property
    def current(self) -> int:
        """The count now."""
        if self._timer.deadline is None or self.mode is Mode.DEADLINE:
            return 0
        return max(0, -(-(self._timer.deadline - self._clock.now) // self._divisor))

    def _expire(self) -> None:
        if self.mode is Mode.PERIODIC and self.initial:
            self._start += self._period
            late = self._clock.now - self._start
            self._start += max(0, late // self._period) * self._period  # periods missed are one interrupt
            self._timer.arm(self._start + self._period)
        self.tsc_deadline = 0
        self._fire()
