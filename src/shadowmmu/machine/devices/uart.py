# SPDX-License-Identifier: GPL-2.0-only
"""The serial port, a 16550 without timing: what is sent is sent at once. Source: National PC16550D data sheet."""

from enum import IntEnum

import cython
from cython.cimports.libc.stdint import uint8_t

SERIAL, SERIAL_LINE = 0x3F8, 4
DIVISOR_LATCH, LOOP = cython.declare(uint8_t, 0x80), cython.declare(uint8_t, 0x10)
RECEIVED, IDLE = cython.declare(uint8_t, 0x01), cython.declare(uint8_t, 0x60)
WANTS_RECEIVED, WANTS_SENT = cython.declare(uint8_t, 1 << 0), cython.declare(uint8_t, 1 << 1)
NONE_PENDING, SENT_PENDING = cython.declare(cython.int, 0x01), cython.declare(cython.int, 0x02)
RECEIVED_PENDING, FIFO = cython.declare(cython.int, 0x04), cython.declare(cython.int, 0xC0)
FIFO_SIZE = cython.declare(cython.int, 16)
CONNECTED = cython.declare(uint8_t, 0xB0)  # the modem's lines: carrier, ready, clear to send
_LOOPED = {1 << 0: 1 << 5, 1 << 1: 1 << 4, 1 << 2: 1 << 6, 1 << 3: 1 << 7}
"""In a loop: what is set in the modem's control register -> what its status has."""


class Uart(IntEnum):
    """Registers."""

    DATA, INTERRUPTS, IDENTIFICATION, LINE, MODEM, LINE_STATUS, MODEM_STATUS, SCRATCH = range(8)


def latches(port: PortPtr, offset: cython.int) -> cython.bint:
    """It is the divisor's."""
    return offset <= INTERRUPTS and (port.registers[LINE] & DIVISOR_LATCH) != 0


def look_at(port: PortPtr, offset: cython.int, value: cython.pointer(uint8_t)) -> cython.bint:
    """Read a register by which nothing changes; False: it is none."""
    if latches(port, offset):
        value[0] = port.divisor[offset]
    elif offset == LINE_STATUS:
        value[0] = IDLE | RECEIVED if port.received else IDLE
    elif offset in (DATA, IDENTIFICATION) or (offset == MODEM_STATUS and port.registers[MODEM] & LOOP):
        return False
    else:
        value[0] = CONNECTED if offset == MODEM_STATUS else port.registers[offset]
    return True


def only_sends(port: PortPtr, offset: cython.int) -> cython.bint:
    """What is written there is sent, and nobody asks for an interrupt."""
    if offset != DATA or latches(port, offset) or port.registers[MODEM] & LOOP:
        return False
    return not port.asks and not port.registers[INTERRUPTS] & (WANTS_RECEIVED | WANTS_SENT)


@cython.final
@cython.cclass
class SerialPort:
    """`send` gets each character; `set_line` hears of its interrupt; `on_set_up` is called when the guest sets up its line."""

    def __init__(self, send: object, set_line: object = lambda level: None) -> None:
        self.send, self.set_line = send, set_line
        self.on_set_up = lambda: None
        self.waiting = bytearray()

    @property
    def full(self):
        """What was received last has not been read yet."""
        return bool(self.port.received)

    def receive(self, character: uint8_t):
        """From the other end of the line."""
        self.waiting.append(character)
        self.update()

    @cython.cfunc
    def identification(self) -> cython.int:
        wants: uint8_t = self.port.registers[INTERRUPTS]
        if wants & WANTS_RECEIVED and self.port.received:
            return RECEIVED_PENDING
        return SENT_PENDING if wants & WANTS_SENT and self.port.sent else NONE_PENDING

    @cython.cfunc
    def update(self) -> object:
        """Whoever heard last that it asks for no interrupt need not hear so again."""
        self.port.received = len(self.waiting) > 0
        asks: cython.bint = self.identification() != NONE_PENDING
        if asks or self.port.asks:
            self.port.asks = asks
            self.set_line(bool(asks))

    def read(self, offset: cython.int, size: cython.int):
        value: uint8_t = 0
        if look_at(cython.address(self.port), offset, cython.address(value)):
            return value
        if offset == DATA:
            return self.take()
        return self.tell() if offset == IDENTIFICATION else self.looped()

    @cython.cfunc
    def tell(self) -> cython.int:
        """Why it asks for an interrupt."""
        found: cython.int = self.identification()
        self.port.sent = self.port.sent and found != SENT_PENDING
        self.update()
        return found | (FIFO if self.port.fifo else 0)

    @cython.cfunc
    def looped(self) -> cython.int:
        """The modem's status."""
        return sum([status for bit, status in _LOOPED.items() if self.port.registers[MODEM] & bit])

    @cython.cfunc
    def take(self) -> cython.int:
        """What has been received."""
        character: cython.int = self.waiting.pop(0) if self.waiting else 0
        self.update()
        return character

    def write(self, offset: cython.int, size: cython.int, value: object):
        written: uint8_t = value & 0xFF
        port: PortPtr = cython.address(self.port)
        if latches(port, offset):
            port.divisor[offset] = written
        elif offset == DATA:
            self.transmit(written)
        elif offset == IDENTIFICATION:
            port.fifo = written & 1
        elif offset not in (LINE_STATUS, MODEM_STATUS):
            port.sent = port.sent or (offset == INTERRUPTS and (written & WANTS_SENT) != 0)
            port.registers[offset] = written
            self.update()
            if offset == LINE and not written & DIVISOR_LATCH:
                self.on_set_up()

    @cython.cfunc
    def transmit(self, character: uint8_t) -> object:
        if not self.port.registers[MODEM] & LOOP:
            self.send(character)
        elif len(self.waiting) < FIFO_SIZE:  # else there is an overrun: it is lost
            self.waiting.append(character)
        self.port.sent = True
        self.update()
