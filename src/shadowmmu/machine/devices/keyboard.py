# SPDX-License-Identifier: GPL-2.0-only
"""The keyboard controller, with a keyboard on which nobody types: ports 60h and 64h. Source: IBM PS/2 Technical Reference, 8042."""

from collections import deque
from collections.abc import Callable

DATA_PORT, COMMAND_PORT = 0x60, 0x64
_OUTPUT_FULL, _SYSTEM, _UNLOCKED = 1 << 0, 1 << 2, 1 << 4
_ACKNOWLEDGE, _SELF_TEST_PASSED, _KEYBOARD_PASSED, _IDENTITY = 0xFA, 0x55, 0xAA, (0xAB, 0x83)
_READ_MODE, _WRITE_MODE, _SELF_TEST, _TEST_KEYBOARD, _READ_INPUT, _READ_OUTPUT, _WRITE_OUTPUT = 0x20, 0x60, 0xAA, 0xAB, 0xC0, 0xD0, 0xD1
_PULSE_RESET = 0xFE
_RESET_KEYBOARD, _IDENTIFY = 0xFF, 0xF2
_TAKES_A_BYTE = frozenset((_WRITE_MODE, _WRITE_OUTPUT, 0xD2, 0xD3, 0xD4))
_A20_AND_RUNNING = 0x03
_BUFFER = 16
"""Codes that a keyboard keeps until they are read."""


class KeyboardController:
    """`reset` is called when the guest resets the machine by it; `self.command` is its other port."""

    def __init__(self, reset: Callable[[], None]) -> None:
        self._reset = reset
        self._answers: deque[int] = deque()
        self._mode = 0x61  # interrupt on, translation, mouse off
        self._waits_for: int | None = None
        self.command = CommandPort(self)

    def read(self, offset: int, size: int) -> int:
        return self._answers.popleft() if self._answers else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A byte for the controller, if its last command wants one; else a command to the keyboard."""
        command, self._waits_for = self._waits_for, None
        if command == _WRITE_MODE:
            self._mode = value & 0xFF
        elif command == _WRITE_OUTPUT and not value & 1:
            self._reset()
        elif command is None:
            self._answer(_ACKNOWLEDGE, *{_RESET_KEYBOARD: (_KEYBOARD_PASSED,), _IDENTIFY: _IDENTITY}.get(value & 0xFF, ()))

    def _answer(self, *codes: int) -> None:
        """What the buffer has no room for is lost."""
        self._answers.extend(codes[: _BUFFER - len(self._answers)])

    def status(self) -> int:
        return _SYSTEM | _UNLOCKED | (_OUTPUT_FULL if self._answers else 0)

    def obey(self, command: int) -> None:
        """A command to the controller."""
        answer = {
            _READ_MODE: self._mode,
            _SELF_TEST: _SELF_TEST_PASSED,
            _TEST_KEYBOARD: 0,
            _READ_INPUT: 0x80,
            _READ_OUTPUT: _A20_AND_RUNNING,
        }
        if command in answer:
            self._answer(answer[command])
        elif command == _PULSE_RESET:
            self._reset()
        self._waits_for = command if command in _TAKES_A_BYTE else None


class CommandPort:
    """Port 64h."""

    def __init__(self, controller: KeyboardController) -> None:
        self._controller = controller

    def read(self, offset: int, size: int) -> int:
        return self._controller.status()

    def write(self, offset: int, size: int, value: int) -> None:
        self._controller.obey(value & 0xFF)
