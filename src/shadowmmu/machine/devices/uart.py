# SPDX-License-Identifier: GPL-2.0-only
"""The serial port, a 16550 without timing: what is sent is sent at once. Source: National PC16550D data sheet."""

from collections.abc import Callable
from enum import IntEnum

SERIAL, SERIAL_LINE = 0x3F8, 4
_DIVISOR_LATCH, _LOOP = 0x80, 0x10
_RECEIVED, _IDLE = 0x01, 0x60
_WANTS_RECEIVED, _WANTS_SENT = 1 << 0, 1 << 1
_NONE_PENDING, _SENT_PENDING, _RECEIVED_PENDING, _FIFO = 0x01, 0x02, 0x04, 0xC0
_FIFO_SIZE = 16
_CONNECTED = 0xB0  # the modem's lines: carrier, ready, clear to send
_LOOPED = {1 << 0: 1 << 5, 1 << 1: 1 << 4, 1 << 2: 1 << 6, 1 << 3: 1 << 7}
"""In a loop: what is set in the modem's control register -> what its status has."""


class Uart(IntEnum):
    """Registers."""

    DATA, INTERRUPTS, IDENTIFICATION, LINE, MODEM, LINE_STATUS, MODEM_STATUS, SCRATCH = range(8)


class SerialPort:
    """`send` gets each character; `set_line` hears of its interrupt; `on_set_up` is called when the guest sets up its line."""

    def __init__(self, send: Callable[[int], None], set_line: Callable[[bool], None] = lambda level: None) -> None:
        self._send, self._set_line = send, set_line
        self.on_set_up: Callable[[], None] = lambda: None
        self._waiting = bytearray()
        self._registers = bytearray(len(Uart))
        self._divisor = bytearray(2)
        self._fifo = self._sent = False

    @property
    def full(self) -> bool:
        """What was received last has not been read yet."""
        return bool(self._waiting)

    def receive(self, character: int) -> None:
        """From the other end of the line."""
        self._waiting.append(character)
        self._update()

    def _identification(self) -> int:
        wants = self._registers[Uart.INTERRUPTS]
        if wants & _WANTS_RECEIVED and self._waiting:
            return _RECEIVED_PENDING
        return _SENT_PENDING if wants & _WANTS_SENT and self._sent else _NONE_PENDING

    def _update(self) -> None:
        self._set_line(self._identification() != _NONE_PENDING)

    def _latches(self, offset: int) -> bool:
        return offset <= Uart.INTERRUPTS and bool(self._registers[Uart.LINE] & _DIVISOR_LATCH)

    def read(self, offset: int, size: int) -> int:
        if self._latches(offset):
            return self._divisor[offset]
        if offset == Uart.DATA:
            return self._receive()
        if offset == Uart.IDENTIFICATION:
            found = self._identification()
            self._sent = self._sent and found != _SENT_PENDING
            self._update()
            return found | (_FIFO if self._fifo else 0)
        if offset == Uart.LINE_STATUS:
            return _IDLE | (_RECEIVED if self._waiting else 0)
        return self._modem_status() if offset == Uart.MODEM_STATUS else self._registers[offset]

    def _modem_status(self) -> int:
        control = self._registers[Uart.MODEM]
        if not control & _LOOP:
            return _CONNECTED
        return sum(status for bit, status in _LOOPED.items() if control & bit)

    def _receive(self) -> int:
        character = self._waiting.pop(0) if self._waiting else 0
        self._update()
        return character

    def write(self, offset: int, size: int, value: int) -> None:
        value &= 0xFF
        if self._latches(offset):
            self._divisor[offset] = value
        elif offset == Uart.DATA:
            self._transmit(value)
        elif offset == Uart.IDENTIFICATION:
            self._fifo = bool(value & 1)
        elif offset not in (Uart.LINE_STATUS, Uart.MODEM_STATUS):
            self._sent = self._sent or (offset == Uart.INTERRUPTS and bool(value & _WANTS_SENT))
            self._registers[offset] = value
            self._update()
            if offset == Uart.LINE and not value & _DIVISOR_LATCH:
                self.on_set_up()

    def _transmit(self, character: int) -> None:
        if self._registers[Uart.MODEM] & _LOOP:
            self._waiting += bytes([character])[: _FIFO_SIZE - len(self._waiting)]  # overrun: it is lost
        else:
            self._send(character)
        self._sent = True
        self._update()
