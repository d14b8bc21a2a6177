# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable
from enum import IntEnum
from typing import final

SERIAL: int
SERIAL_LINE: int

class Uart(IntEnum):
    DATA = 0
    INTERRUPTS = 1
    IDENTIFICATION = 2
    LINE = 3
    MODEM = 4
    LINE_STATUS = 5
    MODEM_STATUS = 6
    SCRATCH = 7

@final
class SerialPort:
    on_set_up: Callable[[], None]
    def __init__(self, send: Callable[[int], None], set_line: Callable[[bool], None] = ...) -> None: ...
    @property
    def full(self) -> bool: ...
    def receive(self, character: int) -> None: ...
    def read(self, offset: int, size: int) -> int: ...
    def write(self, offset: int, size: int, value: int) -> None: ...
