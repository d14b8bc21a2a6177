# SPDX-License-Identifier: GPL-2.0-only
"""The devices of the machine: a serial port, the exit port, a debug port. There are no interrupts."""

from collections.abc import Callable

from shadowmmu.machine.unclaimed import Unclaimed

SERIAL = 0x3F8
EXIT_PORT = 0xF4
EXIT_PASS = 0x10
DEBUG_PORT = 0xE9
_DATA, _INTERRUPT_ID, _LINE_CONTROL, _STATUS = 0, 2, 3, 5  # registers of the serial port
_DIVISOR_LATCH = 0x80  # in the line control register: the first two registers are the baud rate's
_SERIAL_READS = {_DATA: 0, _INTERRUPT_ID: 0x01, _STATUS: 0x60}  # nothing received, no interrupt, ready to send


class PortBus:
    """The I/O port space. What is read where nothing is, is all ones.

    `on_output` gets each line the guest prints, its end included, and at the end what is left of one; `on_exit` is
    called when the guest writes the exit port.
    """

    def __init__(self, on_output: Callable[[str], None] | None, on_exit: Callable[[], None], unclaimed: Unclaimed | None = None) -> None:
        self.exit_code: int | None = None
        self.reads = self.writes = 0
        self._on_output, self._on_exit = on_output, on_exit
        self._unclaimed = unclaimed or Unclaimed()
        self._output: list[str] = []
        self._line = bytearray()
        self._serial = bytearray(8)

    def read(self, port: int, size: int) -> int:
        self.reads += 1
        if SERIAL <= port < SERIAL + len(self._serial):
            return _SERIAL_READS.get(port - SERIAL, self._serial[port - SERIAL])
        if port == DEBUG_PORT:
            return DEBUG_PORT  # how a guest finds it
        self._unclaimed.port(port, size, write=False)
        return (1 << 8 * size) - 1

    def write(self, port: int, size: int, value: int) -> None:
        self.writes += 1
        if port == DEBUG_PORT or (port == SERIAL and not self._serial[_LINE_CONTROL] & _DIVISOR_LATCH):
            self._print(value & 0xFF)
        elif SERIAL <= port < SERIAL + len(self._serial):
            self._serial[port - SERIAL] = value & 0xFF
        elif port == EXIT_PORT and self.exit_code is None:
            self.exit_code = value
            self._on_exit()
        else:
            self._unclaimed.port(port, size, write=True)

    def _print(self, character: int) -> None:
        self._line.append(character)
        if character == 0x0A:
            self.flush()

    def flush(self) -> None:
        """Hand on an unfinished line."""
        if not self._line:
            return
        text = self._line.decode("utf-8", "replace").replace("\r\n", "\n")
        self._line.clear()
        self._output.append(text)
        if self._on_output is not None:
            self._on_output(text)

    @property
    def output(self) -> str:
        """All complete lines so far, and the unfinished one."""
        return "".join(self._output) + self._line.decode("utf-8", "replace")
