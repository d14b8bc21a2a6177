# SPDX-License-Identifier: GPL-2.0-only
"""The exit port, by which a guest ends its run, and the debug port, by which it prints."""

from collections.abc import Callable

EXIT_PORT, DEBUG_PORT = 0xF4, 0xE9
EXIT_PASS = 0x10


class ExitDevice:
    """`on_exit` is called at the first write; later ones change nothing."""

    def __init__(self, on_exit: Callable[[], None]) -> None:
        self._on_exit = on_exit
        self.code: int | None = None

    def read(self, offset: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        if self.code is None:
            self.code = value
            self._on_exit()


class DebugPort:
    """Reads as its own number, which is how a guest finds it."""

    def __init__(self, send: Callable[[int], None]) -> None:
        self._send = send

    def read(self, offset: int, size: int) -> int:
        return DEBUG_PORT

    def write(self, offset: int, size: int, value: int) -> None:
        self._send(value & 0xFF)
