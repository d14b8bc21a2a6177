# SPDX-License-Identifier: GPL-2.0-only
"""The entries for an address, from the root down, and no more: neither rights nor reserved bits end this way.

For who looks at tables, or compares what two of them hold; what a CPU makes of an address is `walk`'s.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from shadowmmu.hardware.walk import ADDRESS, LARGE, PRESENT, bits

_ADDRESS_32 = 0xFFFFF000
_PDPT = 0xFFFFFFE0  # the PDPT of PAE paging is 32-byte aligned
_LARGEST = 3  # level of a 1 GB page


class PathEntry(NamedTuple):
    """One entry on the way."""

    level: int
    number: int
    """Which of its table."""
    at: int
    """Where it lies."""
    value: int
    shift: int
    """Bits of an address below that number."""
    leaf: bool
    """It maps a page, if it is present."""

    @property
    def present(self) -> bool:
        return bool(self.value & PRESENT)

    def address(self, gva: int) -> int:
        """What `gva` leads to by this leaf."""
        inside = bits(self.shift - 1, 0)
        if self.shift == 22:  # a 4 MB page: PSE-36, SDM table 4-4
            return (self.value >> 13 & 0xFF) << 32 | self.value & _ADDRESS_32 & ~inside | gva & inside
        return self.value & ADDRESS & ~inside | gva & inside


def path(
    read: Callable[[int, int], int | None], root: int, levels: int, gva: int, *, pse: bool = True, pdptes: Sequence[int] = ()
) -> Iterator[PathEntry]:
    """The entries for `gva` below `root`: to a leaf, to an entry that is not present, or to where there is no memory.

    Two levels are those of 4-byte entries, three those of PAE, whose upper table has four; with `pdptes` they are these.
    """
    size, width = (4, 10) if levels == 2 else (8, 9)
    table = root & (_PDPT if levels == 3 else ADDRESS)
    for level in range(levels, 0, -1):
        is_pdpte = level == levels == 3
        shift = 12 + width * (level - 1)
        number = gva >> shift & (3 if is_pdpte else bits(width - 1, 0))
        value = pdptes[number] if is_pdpte and pdptes else read(table + size * number, size)
        if value is None:
            return
        leaf = level == 1 or bool(value & LARGE and level <= _LARGEST and not is_pdpte and (pse or size == 8))
        yield PathEntry(level, number, table + size * number, value, shift, leaf)
        if leaf or not value & PRESENT:
            return
        table = value & (_ADDRESS_32 if size == 4 else ADDRESS)
