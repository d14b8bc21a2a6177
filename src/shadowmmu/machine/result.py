# SPDX-License-Identifier: GPL-2.0-only
"""How a run ended, in numbers. Plain data: rendering is elsewhere."""

import ctypes
import mmap
from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Why a run ended."""

    PASSED = "passed"
    """The guest wrote what it should to the exit port, and its last line is the expected one."""
    FAILED = "failed"
    """It wrote another value, its last line is not the expected one, or it prints without end."""
    HALTED = "halted"
    """Every vCPU executed HLT, and nothing could wake it."""
    RESET = "reset"
    """The guest reset the machine."""
    TRIPLE_FAULT = "triple fault"
    EXIT_LIMIT = "exit limit"
    """`max_exits` were reached; `run` may be called again."""
    TIME_LIMIT = "time limit"
    """`max_ticks` of virtual time are over; `run` may be called again."""
    SPINNING = "spinning"
    """The guest executed `max_quiet` instructions without an exit."""
    UNEMULATED = "unemulated instruction"


class GuestResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a guest."""

    guest: str
    roots: str
    reason: Reason
    detail: str
    """One line more about the reason; may be empty."""
    code: int | None
    """What the guest wrote to the exit port."""
    exits: dict[str, int]
    """Exits by kind, those in the middle of an event delivery included."""
    outcomes: dict[str, int]
    """Page-fault exits by how the engine ended them."""
    injected: dict[str, int]
    """Exceptions and software interrupts raised for the guest, by name."""
    reflected: dict[str, int]
    """Exits of L2 that its hypervisor, the guest, asked for, by name."""
    emulated: int
    """Instructions (of repeated ones: steps) emulated."""
    unprotected: int
    """Instructions let through by no longer shadowing what they write."""
    port_accesses: int
    output: str
    counters: dict[str, int]
    """The engine's counters by their kernel names."""
    host_memory: int
    """Bytes of host memory the kernel has given this process for guest pages and shadow tables, as of now."""

    @property
    def passed(self) -> bool:
        return self.reason is Reason.PASSED

    @property
    def total_exits(self) -> int:
        return sum(self.exits.values())


def resident_bytes(regions: Sequence[tuple[int, int, int]]) -> int:
    """How much of host memory (hpa, size, address in this process) has been touched, by mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    touched = 0
    for _, size, address in regions:
        start = address & -mmap.PAGESIZE
        pages = (address + size - start + mmap.PAGESIZE - 1) // mmap.PAGESIZE
        resident = (ctypes.c_ubyte * pages)()
        if libc.mincore(start, pages * mmap.PAGESIZE, resident) == 0:
            touched += sum(1 for page in resident if page & 1) * mmap.PAGESIZE
    return touched
