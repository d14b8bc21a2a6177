# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's device for test suites: a port that keeps what is written, interrupt lines, and a range of memory.

Source: QEMU, hw/misc/pc-testdev.c.
"""

from collections.abc import Callable

LOOP_PORT, FLUSH_PORT, LINES = 0xE0, 0xE4, 0x2000
MEMORY, MEMORY_SIZE = 0xFF000000, 0x10000


class LoopPort:
    """Reads as what was written last."""

    def __init__(self) -> None:
        self._value = 0

    def read(self, offset: int, size: int) -> int:
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:
        mask = (1 << 8 * size) - 1 << 8 * offset
        self._value = self._value & ~mask | value << 8 * offset & mask


class FlushPort:
    """Takes the page at the address that is written from the guest for a moment, so that its next access faults in the host."""

    def __init__(self, flush: Callable[[int], None]) -> None:
        self._flush = flush

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self._flush(value & -4096)


class LinePorts:
    """One port for each interrupt line: its level."""

    def __init__(self, set_line: Callable[[int, bool], None]) -> None:
        self._set_line = set_line

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self._set_line(offset, bool(value & 0xFF))


class DeviceMemory:
    """`mmio_bus.MmioDevice`: memory that the CPU does not reach by itself."""

    def __init__(self) -> None:
        self._bytes = bytearray(MEMORY_SIZE)

    def claims(self, gpa: int) -> bool:
        return MEMORY <= gpa < MEMORY + MEMORY_SIZE

    def read(self, gpa: int, size: int) -> int:
        return int.from_bytes(self._bytes[gpa - MEMORY : gpa - MEMORY + size], "little")

    def write(self, gpa: int, size: int, value: int) -> None:
        self._bytes[gpa - MEMORY : gpa - MEMORY + size] = value.to_bytes(size, "little")
