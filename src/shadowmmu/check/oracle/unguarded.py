# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""Guest tables that may be other than their shadow, though nobody has flushed: what the entries in them have been."""

from __future__ import annotations

from collections.abc import Callable

from shadowmmu.check.oracle.guest_memory import GuestMemory


class Unguarded:
    """Guest tables that Linux may let the guest write unseen, and what their entries have been.

    Where a gfn was used as MMIO a mark may remember that it was writable. When a memslot has come, the next access through
    that mark maps the gfn writable without a look at what is shadowed: what its entries were stays in force. Likewise where another
    gfn has the same host memory: a store by that one is tracked, and told, by that one alone.
    """

    def __init__(self) -> None:
        self.mmio: set[int] = set()
        """gfns that were used where there was no memory."""
        self.gfns: set[int] = set()
        """Those of them that have memory by now."""
        self.values: dict[int, set[int]] = {}
        """Host address of an entry in such a table -> all that it was seen to be."""
        self.outside: dict[int, dict[int, set[int]]] = {4: {}, 8: {}}
        """Bytes of an entry -> host address -> what it was before stores from outside the VM. The MMU was not told of these, so that
        stays in force where it is shadowed, until the guest itself stores there."""
        self.narrow, self.wide = self.outside[4], self.outside[8]
        self.some = 0
        """Bit n: such an entry lies, or lay, in a frame whose number ends in these six bits. Most lie in none."""

    def memory_changed(self, memory: GuestMemory) -> None:
        self.gfns |= {gfn for gfn in self.mmio if memory.host(gfn << 12) is not None}

    def follow(self, hpa: int) -> None:
        """The entry at `hpa` lies in a table that may be stored to unseen: from now on all counts that it is seen to be."""
        self.values.setdefault(hpa, set())
        self.note(hpa)

    def note(self, hpa: int) -> None:
        bit = 1
        self.some |= bit << (hpa >> 12 & 63)

    def store_from_outside(self, hpa: int, size: int, read: Callable[[int, int], int]) -> None:
        """Such a store is about to be made."""
        self.note(hpa)
        for width, entries in self.outside.items():
            for at in range(hpa & -width, hpa + size, width):
                entries.setdefault(at, set()).add(read(at, width))

    def stored(self, hpa: int, size: int) -> None:
        """The guest has stored, or the MMU was told: what is shadowed is of now, or will be when the guest flushes."""
        for width, entries in self.outside.items():
            for at in range(hpa & -width, hpa + size, width) if entries else ():
                entries.pop(at, None)

    def is_other(self, hpa: int, width: int) -> bool:
        """The entry at `hpa` may be something else in the shadow than what it is now."""
        if not self.some >> (hpa >> 12 & 63) & 1:
            return False
        return hpa in self.values or hpa in (self.narrow if width == 4 else self.wide)

    def before(self, hpa: int, width: int, entry: int) -> set[int]:
        """What the entry at `hpa` may be in the shadow besides `entry`, which it is now."""
        if hpa in self.values:
            self.values[hpa].add(entry)
        return (self.values.get(hpa, set()) | self.outside[width].get(hpa, set())) - {entry}
