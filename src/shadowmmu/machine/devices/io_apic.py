# SPDX-License-Identifier: GPL-2.0-only
"""The I/O APIC: 24 lines, each with a redirection entry that says to whom it goes. Source: 82093AA data sheet; KVM's ioapic.c."""

from shadowmmu.machine.devices.apic_bus import ApicBus, Message
from shadowmmu.machine.devices.apic_registers import Delivery

IO_APIC_BASE = 0xFEC00000
PINS = 24
_ID, _VERSION, _ARBITRATION, _REDIRECTION = 0, 1, 2, 0x10
_SELECT, _WINDOW = 0x00, 0x10
_LOGICAL, _STATUS, _REMOTE_IRR, _LEVEL, _MASKED = 1 << 11, 1 << 12, 1 << 14, 1 << 15, 1 << 16
_READ_ONLY = _STATUS | _REMOTE_IRR
_WRITABLE = 0xFF000000_0001FFFF


class IoApic:
    """`mmio_bus.MmioDevice`. `number`: its ID, as firmware has written it."""

    def __init__(self, bus: ApicBus, number: int = 0) -> None:
        self._bus = bus
        bus.on_eoi = self.end_of_interrupt
        self._select, self._id = 0, number & 0xF
        self._entries = [_MASKED] * PINS
        self._lines = 0

    def set_line(self, pin: int, level: bool) -> None:
        """An edge counts where it comes, unless the pin is masked; a level as long as it is there."""
        was, bit = self._lines >> pin & 1, 1 << pin
        self._lines = self._lines | bit if level else self._lines & ~bit
        if level and (not was or self._entries[pin] & _LEVEL):
            self._service(pin)

    def _service(self, pin: int) -> None:
        entry = self._entries[pin]
        if entry & _MASKED or (entry & _LEVEL and entry & _REMOTE_IRR):
            return
        mode = entry >> 8 & 7
        if mode not in set(Delivery):
            return
        if entry & _LEVEL:
            self._entries[pin] |= _REMOTE_IRR
        self._bus.send(Message(Delivery(mode), entry & 0xFF, bool(entry & _LEVEL)), entry >> 56, logical=bool(entry & _LOGICAL))

    def end_of_interrupt(self, vector: int) -> None:
        """A level that is still there comes again."""
        for pin, entry in enumerate(self._entries):
            if entry & 0xFF == vector and entry & _REMOTE_IRR:
                self._entries[pin] &= ~_REMOTE_IRR
                if self._lines >> pin & 1:
                    self._service(pin)

    # --- registers

    def claims(self, gpa: int) -> bool:
        return gpa >> 12 == IO_APIC_BASE >> 12

    def read(self, gpa: int, size: int) -> int:
        if gpa & 0xFF == _SELECT:
            return self._select
        return self._read_selected() if gpa & 0xFF == _WINDOW else 0

    def write(self, gpa: int, size: int, value: int) -> None:
        if gpa & 0xFF == _SELECT:
            self._select = value & 0xFF
        elif gpa & 0xFF == _WINDOW:
            self._write_selected(value & 0xFFFFFFFF)

    def _read_selected(self) -> int:
        if self._select in (_ID, _ARBITRATION):
            return self._id << 24
        if self._select == _VERSION:
            return (PINS - 1) << 16 | 0x11
        pin, half = divmod(self._select - _REDIRECTION, 2)
        return self._entries[pin] >> 32 * half & 0xFFFFFFFF if 0 <= pin < PINS else 0

    def _write_selected(self, value: int) -> None:
        pin, half = divmod(self._select - _REDIRECTION, 2)
        if self._select == _ID:
            self._id = value >> 24 & 0xF
        elif 0 <= pin < PINS:
            old, mask = self._entries[pin], 0xFFFFFFFF << 32 * half & _WRITABLE & ~_READ_ONLY
            self._entries[pin] = new = old & ~mask | value << 32 * half & mask
            if not new & _LEVEL:
                self._entries[pin] &= ~_REMOTE_IRR
            if new & _LEVEL and self._lines >> pin & 1:
                self._service(pin)
