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

    def load(self, gpa: int, size: int) -> bytes:
        for device in self._devices:
            if device.claims(gpa):
                return (device.read(gpa, size) & (1 << 8 * size) - 1).to_bytes(size, "little")
        self._unclaimed.memory(gpa, size, write=False)
        return b"\xff" * size

    def store(self, gpa: int, data: bytes) -> None:
        for device in self._devices:
            if device.claims(gpa):
                device.write(gpa, len(data), int.from_bytes(data, "little"))
                return
        self._unclaimed.memory(gpa, len(data), write=True)
