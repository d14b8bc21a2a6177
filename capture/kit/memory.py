# SPDX-License-Identifier: GPL-2.0-only
"""A guest's memory image: the pages that are not left to be zero."""

from __future__ import annotations

from collections.abc import Iterator

from kit.layout import PAGE


class Memory:
    """Pages by number; made when they are first written."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}

    def touch(self, gpa: int) -> None:
        """Make the page part of the image."""
        self.pages.setdefault(gpa // PAGE, bytearray(PAGE))

    def write(self, gpa: int, data: bytes) -> None:
        for offset, byte in enumerate(data):
            self.touch(gpa + offset)
            self.pages[(gpa + offset) // PAGE][(gpa + offset) % PAGE] = byte

    def write_word(self, gpa: int, value: int, size: int) -> None:
        """Little-endian, `size` bytes; bits above are dropped."""
        self.write(gpa, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def read_word(self, gpa: int, size: int) -> int:
        """An aligned little-endian word."""
        held = self.pages.get(gpa // PAGE)
        return int.from_bytes(held[gpa % PAGE : gpa % PAGE + size], "little") if held else 0

    def runs(self) -> Iterator[tuple[int, bytes]]:
        """Stretches of pages in a row: guest physical address, bytes."""
        numbers = sorted(self.pages)
        starts = [number for number in numbers if number - 1 not in self.pages]
        for start in starts:
            end = start
            while end in self.pages:
                end += 1
            yield start * PAGE, b"".join(bytes(self.pages[number]) for number in range(start, end))
