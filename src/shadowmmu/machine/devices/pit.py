# SPDX-License-Identifier: GPL-2.0-only
"""The interval timer: channel 0 is on interrupt line 0, channel 2 on port 61h. Source: Intel 8254 data sheet.

Modes 0 (interrupt on terminal count), 2 (rate), 3 (square wave) and 4 (strobe); 1 and 5 count as 0 and 4. Counts are binary.
"""

from collections.abc import Callable

from shadowmmu.machine.devices.clock import TICKS_PER_SECOND, Clock

PIT, PORT_61 = 0x40, 0x61
FREQUENCY = 1_193_182
_LATCH, _LOW, _HIGH, _BOTH = 0, 1, 2, 3
_READ_BACK = 3
_RATE, _SQUARE = 2, 3
_GATE, _SPEAKER, _REFRESH, _OUTPUT = 1 << 0, 1 << 1, 1 << 4, 1 << 5


class Channel:
    """One counter. `fire` is called at each end of a count."""

    def __init__(self, clock: Clock, fire: Callable[[], None] | None = None) -> None:
        self._clock, self._fire = clock, fire
        self._timer = clock.timer(self._expire)
        self.mode, self._access = 0, _BOTH
        self._count = 0  # as it was written; 0 is 10000h
        self._start: int | None = None
        self.gate = fire is not None
        self._latched: int | None = None
        self._status: int | None = None
        self._low: int | None = None
        self._second_read = False

    @property
    def _period(self) -> int:
        return self._count or 0x10000

    @property
    def _elapsed(self) -> int:
        """Counts since the beginning."""
        return 0 if self._start is None else (self._clock.now - self._start) * FREQUENCY // TICKS_PER_SECOND

    @property
    def is_periodic(self) -> bool:
        return self.mode in (_RATE, _SQUARE)

    @property
    def value(self) -> int:
        """The count now."""
        if self._start is None:
            return self._count
        if self.mode == _SQUARE:
            return self._period - 2 * self._elapsed % self._period & 0xFFFF
        if self.is_periodic:
            return self._period - self._elapsed % self._period & 0xFFFF
        return self._period - self._elapsed & 0xFFFF

    @property
    def output(self) -> bool:
        if self._start is None:
            return self.is_periodic
        if self.mode == _SQUARE:
            return self._elapsed % self._period < (self._period + 1) // 2
        return self.is_periodic or self._elapsed >= self._period

    def control(self, value: int) -> None:
        """The control word, without the channel."""
        self._access = value >> 4 & 3
        if self._access == _LATCH:
            self._access = _BOTH
            self.latch()
            return
        mode = value >> 1 & 7
        self.mode = mode & 3 if mode > 5 else mode
        self._low, self._start, self._second_read = None, None, False
        self._timer.arm(None)

    def latch(self) -> None:
        if self._latched is None:
            self._latched = self.value

    def latch_status(self) -> None:
        if self._status is None:
            self._status = self.output << 7 | (self._start is None) << 6 | self._access << 4 | self.mode << 1

    def read(self) -> int:
        if self._status is not None:
            status, self._status = self._status, None
            return status
        value = self.value if self._latched is None else self._latched
        if self._access == _BOTH and not self._second_read:
            self._second_read = True
            return value & 0xFF
        self._second_read, self._latched = False, None
        return value & 0xFF if self._access == _LOW else value >> 8 & 0xFF

    def write(self, value: int) -> None:
        if self._access == _BOTH and self._low is None:
            self._low = value
            return
        if self._access == _LOW:
            self._count = value
        else:
            self._count = value << 8 | (self._low or 0)
        self._low = None
        self.begin()

    def begin(self) -> None:
        """Count from the beginning, if the gate lets it."""
        self._start = self._clock.now if self.gate else None
        if self._fire is not None:
            self._arm(1)

    def _arm(self, periods: int) -> None:
        assert self._start is not None
        self._timer.arm(self._start - (-periods * self._period * TICKS_PER_SECOND // FREQUENCY))

    def _expire(self) -> None:
        """Interrupts that come too late are one."""
        if self.is_periodic:
            self._arm(self._elapsed // self._period + 1)
        if self._fire is not None:
            self._fire()


class Pit:
    """Ports 40h to 43h, and port 61h as `system_port`. `fire`: channel 0's output rises."""

    def __init__(self, clock: Clock, fire: Callable[[], None]) -> None:
        self.channels = (Channel(clock, fire), Channel(clock), Channel(clock))
        self.channels[1].gate = True
        self.system_port = SystemPort(clock, self.channels[2])

    def set_up(self) -> None:
        """As firmware leaves it: channel 0 ticks 18.2 times a second."""
        for offset, value in ((3, 0x34), (0, 0), (0, 0)):
            self.write(offset, 1, value)

    def read(self, offset: int, size: int) -> int:
        return self.channels[offset].read() if offset < 3 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        value &= 0xFF
        if offset < 3:
            self.channels[offset].write(value)
        elif value >> 6 == _READ_BACK:
            self._read_back(value)
        else:
            self.channels[value >> 6].control(value & 0x3F)

    def _read_back(self, value: int) -> None:
        for number, channel in enumerate(self.channels):
            if value >> number + 1 & 1:
                if not value & 0x20:
                    channel.latch()
                if not value & 0x10:
                    channel.latch_status()


class SystemPort:
    """Port 61h: gate and output of channel 2, the speaker, and a bit that refreshing memory toggles."""

    def __init__(self, clock: Clock, channel: Channel) -> None:
        self._clock, self._channel = clock, channel
        self._speaker = 0

    def read(self, offset: int, size: int) -> int:
        refresh = self._clock.now // 15_000 & 1
        return self._channel.gate | self._speaker | refresh * _REFRESH | self._channel.output * _OUTPUT

    def write(self, offset: int, size: int, value: int) -> None:
        rises = value & _GATE and not self._channel.gate
        self._channel.gate, self._speaker = bool(value & _GATE), value & _SPEAKER
        if rises:
            self._channel.begin()
