# SPDX-License-Identifier: GPL-2.0-only
"""What to know of a guest that did not pass: where it was, the last faults it was given, and what it asked for in vain."""

from collections import deque

import msgspec

from shadowmmu.machine.emulator.decode import bitness
from shadowmmu.machine.seam import State
from shadowmmu.machine.symbols import Symbols
from shadowmmu.machine.vcpu.pending import Pending
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.machine.vcpu.witness import Witness
from shadowmmu.x86.control import Cr0, Rflags

FAULTS = 8
"""Faults of each vCPU that are remembered, the last ones."""


class Place(msgspec.Struct, frozen=True):
    """Where a vCPU was."""

    rip: str
    """With the base of its code segment, if that is not 0."""
    symbol: str
    """What the guest's ELF image calls the place; empty if it has no name for it."""
    mode: str


class Fault(msgspec.Struct, frozen=True):
    """An exception that was given to a guest."""

    exception: str
    place: Place


class LastSeen(msgspec.Struct, frozen=True):
    vcpus: list[Place]
    faults: list[list[Fault]]
    """Of each vCPU, the last one last."""
    unclaimed: dict[str, dict[str, int]]
    """What nothing answered, by kind, and how often; the last one last."""
    screen: list[str] = []
    """What the text screen shows, of a PC."""


class FaultWitness(Witness):
    """Remembers the last exceptions of one vCPU."""

    def __init__(self) -> None:
        self.processor: Processor
        self._last: deque[tuple[str, State, bool, int]] = deque(maxlen=FAULTS)

    def delivers(self, pending: Pending) -> None:
        event = pending.event
        if event.is_exception:
            code = f" error code {event.error_code:#x}" if event.pushes_error_code else ""
            address = "" if event.cr2 is None else f" at {event.cr2:#x}"
            vcpu = self.processor.vcpu
            self._last.append((event.name + code + address, self.processor.cpu.state(), bool(vcpu.cr0 & Cr0.PE), vcpu.efer))

    def last(self, symbols: Symbols) -> list[Fault]:
        return [Fault(event, _place(state, protected, efer, symbols)) for event, state, protected, efer in self._last]


def place_of(processor: Processor, symbols: Symbols) -> Place:
    """Where a vCPU is now."""
    vcpu = processor.vcpu
    return _place(processor.cpu.state(), bool(vcpu.cr0 & Cr0.PE), vcpu.efer, symbols)


def _place(state: State, protected: bool, efer: int, symbols: Symbols) -> Place:
    bits = bitness(state, efer)
    base = 0 if bits == 64 else state.cs.base
    rip = f"{base:#x}+{state.rip:#x}" if base else f"{state.rip:#x}"
    if not protected:
        mode = "real mode"
    elif state.rflags & Rflags.VM:
        mode = "virtual-8086 mode"
    else:
        mode = f"{bits}-bit code, ring {state.cpl}"
    return Place(rip, symbols.name(base + state.rip), mode)
