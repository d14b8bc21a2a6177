# SPDX-License-Identifier: GPL-2.0-only
"""What happens elsewhere while a fault is served: seen where it happened, between the engine's walk and its result."""

from collections.abc import Callable
from typing import Any

from shadowmmu.check.oracle.virtual_tlb import VirtualTlb
from shadowmmu.hardware.host_memory import HostMemory

MARKS = 0x60
"""A and D, which the walk may set in what was stored."""


class Race:
    """Observes for the oracle a vCPU that is raced by a store of `size` bytes to host memory at `hpa`."""

    def __init__(self, tlb: VirtualTlb, memory: HostMemory, hpa: int, size: int) -> None:
        self.tlb, self.memory, self.hpa, self.size = tlb, memory, hpa, size
        self.before = memory.read(hpa, size)
        self.fired = False
        self.completed, self.stored = tlb.completed, tlb.stored
        self.emulated_store, self.before_walk = tlb.emulated_store, tlb.before_walk

    @staticmethod
    def shows(before: int, after: int) -> bool:
        """Whether the store can be told from what a walk does to the entry."""
        return bool((before ^ after) & ~MARKS)

    def after_walk(self, outcome: str, gpa: int | None, exception: tuple[Any, ...] | None) -> None:
        """The store counts from now on; what the raced entry should have become is not judged, all else is."""
        if not self.fired and self.shows(self.before, self.memory.read(self.hpa, self.size)) and self.tlb.prediction is not None:
            self.fired = True
            self.tlb.oracle.stored(self.hpa, self.size)  # not by the vCPU that faults
            self.tlb.present.leave_out(self.hpa, self.size)
        self.tlb.after_walk(outcome, gpa, exception)


class Elsewhere:
    """Observes for the oracle a vCPU in whose fault something happens elsewhere: `seen` is told, before the outcome is judged."""

    def __init__(self, tlb: VirtualTlb, seen: Callable[[], None]) -> None:
        self.tlb, self.seen = tlb, seen
        self.completed, self.stored = tlb.completed, tlb.stored
        self.emulated_store, self.before_walk = tlb.emulated_store, tlb.before_walk

    def after_walk(self, outcome: str, gpa: int | None, exception: tuple[Any, ...] | None) -> None:
        """The fault has been served, and whatever was let in has happened."""
        self.seen()
        self.tlb.after_walk(outcome, gpa, exception)
