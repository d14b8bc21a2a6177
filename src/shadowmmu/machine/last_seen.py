# SPDX-License-Identifier: GPL-2.0-only
"""What to know of a guest that did not pass: where it was, the last faults it was given, and what it asked for in vain."""

from collections import deque
from typing import NamedTuple

import msgspec

from shadowmmu.machine.emulator.decode import bitness
from shadowmmu.machine.symbols import Symbols
from shadowmmu.machine.vcpu.pending import Pending
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.machine.vcpu.witness import Witness
from shadowmmu.x86.control import Cr0, Rflags
from shadowmmu.x86.vectors import NAMES, PF

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


class _Spot(NamedTuple):
    """RIP and the base of CS; the mode is that of code of so many `bits`."""

    rip: int
    base: int
    bits: int
    cpl: int
    protected: bool = True
    virtual_8086: bool = False


class _Given(NamedTuple):
    exits: int
    """Of the machine before, by which they are in order."""
    exception: str
    spot: _Spot


class FaultWitness(Witness):
    """Remembers the last exceptions of one vCPU. Of those that were delivered in the CPU's hook it asks `quick`."""

    def __init__(self) -> None:
        self.processor: Processor
        self._last: deque[_Given] = deque(maxlen=FAULTS)

    def delivers(self, pending: Pending) -> None:
        event, p = pending.event, self.processor
        if event.is_exception:
            code = event.error_code if event.pushes_error_code else None
            exits = 0 if p.quick is None else p.quick.exits
            self._last.append(_Given(exits, _exception(event.name, code, event.cr2), _spot(p)))

    def last(self, symbols: Symbols) -> list[Fault]:
        quick = self.processor.quick
        served = [] if quick is None else [
            _Given(exits, _exception(NAMES[PF], code, address), _Spot(rip, base, bits, cpl))
            for exits, code, address, rip, base, cpl, bits in quick.faults()
        ]  # fmt: skip
        given = sorted((*served, *self._last), key=lambda one: one.exits)
        return [Fault(one.exception, _place(one.spot, symbols)) for one in given[-FAULTS:]]


def _exception(name: str, code: int | None, address: int | None) -> str:
    return name + ("" if code is None else f" error code {code:#x}") + ("" if address is None else f" at {address:#x}")


def place_of(processor: Processor, symbols: Symbols) -> Place:
    """Where a vCPU is now."""
    return _place(_spot(processor), symbols)


def _spot(processor: Processor) -> _Spot:
    state, vcpu = processor.cpu.state(), processor.vcpu
    bits = bitness(state, vcpu.efer)
    return _Spot(state.rip, state.cs.base, bits, state.cpl, bool(vcpu.cr0 & Cr0.PE), bool(state.rflags & Rflags.VM))


def _place(spot: _Spot, symbols: Symbols) -> Place:
    base = 0 if spot.bits == 64 else spot.base
    rip = f"{base:#x}+{spot.rip:#x}" if base else f"{spot.rip:#x}"
    if not spot.protected:
        mode = "real mode"
    elif spot.virtual_8086:
        mode = "virtual-8086 mode"
    else:
        mode = f"{spot.bits}-bit code, ring {spot.cpl}"
    return Place(rip, symbols.name(base + spot.rip), mode)
