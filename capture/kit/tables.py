# SPDX-License-Identifier: GPL-2.0-only
"""Page tables of a guest, in its memory image: its own, or nested tables that it gives to an L2."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kit.bits import ALL, PS, P
from kit.layout import PAGE
from kit.memory import Memory

ADDRESS = 0x000F_FFFF_FFFF_F000


class Format(NamedTuple):
    """A paging mode's tables."""

    levels: int
    entry_size: int
    """Bytes."""
    index_bits: int

    @property
    def large(self) -> int:
        """Bytes of a large page, and of what a level-1 table maps."""
        return PAGE << self.index_bits

    @property
    def entries(self) -> int:
        return 1 << self.index_bits


TWO_LEVEL, PAE, FOUR_LEVEL, FIVE_LEVEL = Format(2, 4, 10), Format(3, 8, 9), Format(4, 8, 9), Format(5, 8, 9)


class PageTables:
    """One root. `allocate` gives the guest physical address of a fresh page."""

    def __init__(self, memory: Memory, allocate: Callable[[], int], form: Format) -> None:
        self.memory = memory
        self.allocate = allocate
        self.form = form
        self.root = allocate()

    def entry(self, va: int, level: int = 1) -> int:
        """Guest physical address of the entry that decides for `va` at `level`; the tables above it are made if need be."""
        table = self.root
        for above in range(self.form.levels, level, -1):
            at = table + self._index(va, above) * self.form.entry_size
            if not self._read(at) & P:
                pdpte = self.form == PAE and above == 3  # has neither W nor U
                self._write(at, self.allocate() | (P if pdpte else ALL))
            table = self._read(at) & ADDRESS
        return table + self._index(va, level) * self.form.entry_size

    def get(self, va: int, level: int = 1) -> int:
        return self._read(self.entry(va, level))

    def set(self, va: int, level: int, value: int) -> None:
        self._write(self.entry(va, level), value)

    def map(self, va: int, gpa: int, flags: int = ALL, level: int = 1) -> None:
        """Map a page of 4 KiB, or a large one at a level above 1."""
        self.set(va, level, gpa | flags | (PS if level > 1 else 0))

    def map_range(self, va: int, gpa: int, pages: int, flags: int = ALL) -> None:
        for offset in range(0, pages * PAGE, PAGE):
            self.map(va + offset, gpa + offset, flags)

    def map_large(self, va: int, gpa: int, size: int, flags: int = ALL) -> None:
        """`size` bytes, in large pages of level 2."""
        for offset in range(0, size, self.form.large):
            self.map(va + offset, gpa + offset, flags, level=2)

    def table(self, va: int, level: int = 1) -> int:
        """Guest physical address of the table that holds the entry."""
        return self.entry(va, level) & -PAGE

    def fill(self, table: int, gpa: int, pages: int, flags: int = ALL) -> None:
        """Write the first entries of a loose level-1 table."""
        for number in range(pages):
            self._write(table + number * self.form.entry_size, gpa + number * PAGE | flags)

    def _index(self, va: int, level: int) -> int:
        index = va >> 12 + self.form.index_bits * (level - 1)
        pdpt = self.form == PAE and level == 3
        return index & (4 if pdpt else self.form.entries) - 1

    def _read(self, gpa: int) -> int:
        return self.memory.read_word(gpa, self.form.entry_size)

    def _write(self, gpa: int, value: int) -> None:
        self.memory.write_word(gpa, value, self.form.entry_size)
