# SPDX-License-Identifier: GPL-2.0-only
"""Who types at the serial port: a character after the other, each when the guest has read the one before."""

from shadowmmu.machine.devices.clock import Clock
from shadowmmu.machine.devices.uart import SerialPort

_CHARACTER = 87_000
"""Ticks that a character takes at 115,200 baud."""
_PAUSE = 10_000_000
"""Ticks from when the guest has set up the port to the first one, so that a driver finds no character it would throw away."""


class Typist:
    def __init__(self, clock: Clock, port: SerialPort, text: bytes) -> None:
        self._clock, self._port = clock, port
        self._left = bytearray(text)
        self._timer = clock.timer(self._type)
        if text:
            port.on_set_up = self._begin

    def _begin(self) -> None:
        if self._timer.deadline is None and self._left:
            self._timer.arm(self._clock.now + _PAUSE)

    def _type(self) -> None:
        if not self._port.full:
            self._port.receive(self._left.pop(0))
        if self._left:
            self._timer.arm(self._clock.now + _CHARACTER)
