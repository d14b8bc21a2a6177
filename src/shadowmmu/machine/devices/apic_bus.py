# SPDX-License-Identifier: GPL-2.0-only
"""The bus between local APICs and I/O APIC: who a message is for. Source: SDM vol. 3 sections 11.6 and 11.12."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from shadowmmu.machine.devices.apic_registers import LEVEL, LOGICAL, MODE_SHIFT, SHORTHAND_SHIFT, VECTOR, Delivery, Shorthand

_CLUSTERS = 0  # in the upper four bits of DFR; all ones: one flat set
_BROADCAST, _X2_BROADCAST = 0xFF, 0xFFFFFFFF


class Message(NamedTuple):
    mode: Delivery
    vector: int
    level: bool = False


class Apic(Protocol):
    """A local APIC as the bus sees it."""

    id: int
    ldr: int
    dfr: int

    @property
    def enabled(self) -> bool: ...

    @property
    def x2apic(self) -> bool: ...

    @property
    def ppr(self) -> int: ...

    def take(self, message: Message) -> None: ...


class ApicBus:
    """`on_eoi` hears of each end of a level-triggered interrupt, `on_message` of each message."""

    def __init__(self, on_message: Callable[[], None] = lambda: None) -> None:
        self._apics: list[Apic] = []
        self._on_message = on_message
        self.on_eoi: Callable[[int], None] = lambda vector: None

    def join(self, apic: Apic) -> None:
        self._apics.append(apic)

    def end_of_interrupt(self, vector: int) -> None:
        self.on_eoi(vector)

    def send_ipi(self, source: Apic, icr: int) -> None:
        """What `source` has written to its interrupt command register."""
        try:
            message = Message(Delivery(icr >> MODE_SHIFT & 7), icr & VECTOR, bool(icr & LEVEL))
        except ValueError:
            return  # a reserved mode
        shorthand = icr >> SHORTHAND_SHIFT & 3
        if shorthand == Shorthand.NONE:
            self.send(message, icr >> 32 if source.x2apic else icr >> 56, logical=bool(icr & LOGICAL), wide=source.x2apic)
        elif shorthand == Shorthand.SELF:
            self._give(message, [source])
        else:
            self._give(message, [apic for apic in self._apics if shorthand == Shorthand.ALL or apic is not source])

    def send(self, message: Message, destination: int, *, logical: bool, wide: bool = False) -> int:
        """`wide`: the destination has 32 bits, as an x2APIC sends it. How many it goes to."""
        targets = [apic for apic in self._apics if _matches(apic, destination, logical, wide)]
        if message.mode is Delivery.LOWEST_PRIORITY and targets:
            targets = [min(targets, key=lambda apic: apic.ppr)]
        self._give(message, targets)
        return len(targets)

    def _give(self, message: Message, targets: Iterable[Apic]) -> None:
        for apic in targets:
            if apic.enabled:
                apic.take(message)
        self._on_message()


def _matches(apic: Apic, destination: int, logical: bool, wide: bool) -> bool:
    if destination == (_X2_BROADCAST if wide else _BROADCAST):
        return True
    if not logical:
        return apic.id == destination
    if apic.x2apic:
        return apic.ldr >> 16 == destination >> 16 and bool(apic.ldr & destination & 0xFFFF)
    own = apic.ldr >> 24
    if apic.dfr >> 28 == _CLUSTERS:
        return own >> 4 == destination >> 4 and bool(own & destination & 0xF)
    return bool(own & destination)
