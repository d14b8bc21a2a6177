# SPDX-License-Identifier: GPL-2.0-only
"""The I/O port space."""

from typing import Protocol

from shadowmmu.machine.devices.clock import TICKS_PER_EXIT, Clock
from shadowmmu.machine.unclaimed import Unclaimed


class PortDevice(Protocol):
    """Something at a range of ports; `offset` counts from its first."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class PortBus:
    """What is read where nothing is, is all ones. An access takes as long as an exit, which it would be elsewhere."""

    def __init__(self, unclaimed: Unclaimed | None = None, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self.reads = self.writes = 0
        self._unclaimed = unclaimed or Unclaimed()
        self._devices: dict[int, tuple[int, PortDevice]] = {}

    def add(self, first: int, ports: int, device: PortDevice) -> None:
        """Put a device at `first` and the ports behind it."""
        self._devices |= dict.fromkeys(range(first, first + ports), (first, device))

    def read(self, port: int, size: int) -> int:
        self.reads += 1
        self._clock.spend(TICKS_PER_EXIT)
        found = self._devices.get(port)
        if found is None:
            self._unclaimed.port(port, size, write=False)
            return (1 << 8 * size) - 1
        return found[1].read(port - found[0], size) & (1 << 8 * size) - 1

    def write(self, port: int, size: int, value: int) -> None:
        self.writes += 1
        self._clock.spend(TICKS_PER_EXIT)
        found = self._devices.get(port)
        if found is None:
            self._unclaimed.port(port, size, write=True)
        else:
            found[1].write(port - found[0], size, value)
