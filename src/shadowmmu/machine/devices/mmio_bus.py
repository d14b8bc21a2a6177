# SPDX-License-Identifier: GPL-2.0-only
"""Devices in guest physical memory, where no memslot is."""

from typing import Protocol

from shadowmmu.machine.unclaimed import Unclaimed


class MmioDevice(Protocol):
    """Something at a range of guest physical addresses."""

    def claims(self, gpa: int) -> bool: ...

    def read(self, gpa: int, size: int) -> int: ...

    def write(self, gpa: int, size: int, value: int) -> None: ...


class MmioBus:
    """What is read where nothing is, is all ones; what is written there is lost. Each vCPU has one, for its local APIC is on it alone."""

    def __init__(self, unclaimed: Unclaimed | None = None) -> None:
        self._unclaimed = unclaimed or Unclaimed()
        self._devices: list[MmioDevice] = []

    def add(self, *devices: MmioDevice) -> None:
        self._devices.extend(devices)

    def read(self, gpa: int, size: int) -> int:
        for device in self._devices:
            if device.claims(gpa):
                return device.read(gpa, size) & (1 << 8 * size) - 1
        self._unclaimed.memory(gpa, size, write=False)
        return (1 << 8 * size) - 1

    def write(self, gpa: int, size: int, value: int) -> None:
        """`value` has no more than `size` bytes."""
        for device in self._devices:
            if device.claims(gpa):
                device.write(gpa, size, value)
                return
        self._unclaimed.memory(gpa, size, write=True)
