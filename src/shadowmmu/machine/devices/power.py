# SPDX-License-Identifier: GPL-2.0-only
"""ACPI's power management registers, and the sleep that leaves only memory (S3). Source: ACPI 1.0b sections 4.7.3 and 9.3.2.

A sleep ends at once: nobody has anything else to do. The first processor then starts where FACS says, in real mode.
"""

from collections.abc import Callable

_SLEEP, _SLEEP_TYPE_SHIFT = 1 << 13, 10


class PowerManagement:
    """Ports of events (+0 status, +2 enable) and control (+4). `sleep` is called with the type that the guest writes."""

    def __init__(self, sleep: Callable[[int], None]) -> None:
        self._sleep = sleep
        self._registers = bytearray(8)

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self._registers[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        if offset < 2:
            return  # status: no event has come
        self._registers[offset : offset + size] = (value & ~_SLEEP & (1 << 8 * size) - 1).to_bytes(size, "little")
        if offset == 4 and value & _SLEEP:
            self._sleep(value >> _SLEEP_TYPE_SHIFT & 7)
