# SPDX-License-Identifier: GPL-2.0-only
"""The text screen: 80 by 25 characters in memory at B8000h, and the display controller's registers, of which the cursor's are used.

Source: Motorola MC6845 data sheet.
"""

CRTC, SCREEN = 0x3D4, 0xB8000
COLUMNS, ROWS = 80, 25
SCREEN_SIZE = 2 * COLUMNS * ROWS
_CODE_PAGE = "cp437"


class DisplayController:
    """Port +0 selects a register, port +1 is it."""

    def __init__(self) -> None:
        self._index = 0
        self._registers = bytearray(32)

    def read(self, offset: int, size: int) -> int:
        return self._registers[self._index] if offset else self._index

    def write(self, offset: int, size: int, value: int) -> None:
        if not offset:
            if size == 2:  # register and value at once
                self._registers[value & 0x1F] = value >> 8 & 0xFF
            self._index = value & 0x1F
        else:
            self._registers[self._index] = value & 0xFF


def screen_text(memory: bytes) -> list[str]:
    """The lines that `memory` shows, without what is empty at their ends and below."""
    text = memory[::2].replace(b"\0", b" ").decode(_CODE_PAGE)
    lines = [text[at : at + COLUMNS].rstrip() for at in range(0, len(text), COLUMNS)]
    while lines and not lines[-1]:
        lines.pop()
    return lines
