# SPDX-License-Identifier: GPL-2.0-only
"""The real-time clock and its battery-backed memory: ports 70h, 71h. Source: Motorola MC146818A data sheet.

Its time begins at the same moment in each run and goes on with the machine's clock.
"""

from datetime import UTC, datetime, timedelta

from shadowmmu.machine.devices.clock import TICKS_PER_SECOND, Clock
from shadowmmu.machine.devices.memory_map import LOW_MIB

RTC = 0x70
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
_STATUS_A, _STATUS_B, _STATUS_C, _STATUS_D, _CENTURY = 0xA, 0xB, 0xC, 0xD, 0x32
_24_HOURS, _BINARY, _VALID = 1 << 1, 1 << 2, 1 << 7
_DIVIDER, _UPDATES = 0x26, 1 << 7
_UPDATE_TICKS = 244_000
"""How long before a second's end its registers are being changed."""


class Rtc:
    def __init__(self, clock: Clock, memory_mib: int) -> None:
        self._clock = clock
        self._index = 0
        self._ram = bytearray(128)
        self._ram[_STATUS_A], self._ram[_STATUS_B], self._ram[_STATUS_D] = _DIVIDER, _24_HOURS, _VALID
        extended = max(0, min(memory_mib << 10, 64 << 10) - 1024)
        for at, value in ((0x15, 640), (0x17, extended), (0x30, extended), (0x34, max(0, min(memory_mib, LOW_MIB) - 16) << 4)):
            self._ram[at : at + 2] = min(value, 0xFFFF).to_bytes(2, "little")  # as firmware leaves it
        self._ram[0x5B:0x5E] = (max(0, memory_mib - LOW_MIB) << 4).to_bytes(3, "little")

    def read(self, offset: int, size: int) -> int:
        if offset == 0:
            return self._index
        if self._index == _STATUS_A:
            left = TICKS_PER_SECOND - self._clock.now % TICKS_PER_SECOND
            return self._ram[_STATUS_A] | (_UPDATES if left <= _UPDATE_TICKS else 0)
        field = self._time().get(self._index)
        if field is None:
            return self._ram[self._index]
        return field if self._ram[_STATUS_B] & _BINARY else field // 10 << 4 | field % 10

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self._index = value & 0x7F
        elif self._index not in (_STATUS_C, _STATUS_D):
            self._ram[self._index] = value & 0xFF

    def _time(self) -> dict[int, int]:
        now = BEGINNING + timedelta(seconds=self._clock.now // TICKS_PER_SECOND)
        return {
            0x0: now.second,
            0x2: now.minute,
            0x4: now.hour if self._ram[_STATUS_B] & _24_HOURS else (now.hour + 11) % 12 + 1 | (now.hour >= 12) << 7,
            0x6: now.isoweekday() % 7 + 1,
            0x7: now.day,
            0x8: now.month,
            0x9: now.year % 100,
            _CENTURY: now.year // 100,
        }
