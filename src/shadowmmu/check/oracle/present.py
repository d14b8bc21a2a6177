# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""The guest's present tables, as a bare CPU's walk of them finds and leaves them.

Nothing is stored: A and D that the walk sets are kept here, byte by byte, as a page can be a table of L2's and of L1's, with
entries of two sizes.
"""

import cython

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.hardware.walk import Tables


class Present(Tables):
    """A walk's view of guest memory: what it has seen, and what it would have set."""

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory

    def begin(self):
        """Another walk."""
        self.seen = self.set = 0
        return

    def load(self, pa: int, size: int) -> int:
        """The entry at a guest-physical address, with what the walk has set in it; 0 where there is no memory."""
        hpa = self.memory.frame(pa)
        if hpa == NOWHERE:
            return 0
        value = self.memory.value(hpa, size)
        for number in range(self.seen):
            if self.entry[number].hpa == hpa and self.entry[number].size == size:
                break
        else:
            self.see(hpa, size, value)
        return self.marked(hpa, size, value)

    def see(self, hpa, size, value):
        if self.seen == MOST:
            raise ValueError(f"a walk reads more than {MOST} entries")
        self.entry[self.seen].hpa, self.entry[self.seen].size, self.entry[self.seen].value = hpa, size, value
        self.seen += 1
        return

    def store(self, pa: int, size: int, value: int) -> None:
        """A or D is set, where memory takes it."""
        hpa = self.memory.frame(pa)
        if hpa == NOWHERE or not self.memory.stores(pa):
            return
        if self.set == MOST:
            raise ValueError(f"a walk sets bits in more than {MOST} entries")
        self.mark[self.set].hpa, self.mark[self.set].size, self.mark[self.set].value = hpa, size, value
        self.set += 1

    def marked(self, hpa, size, value):
        """The entry, with what was set in its bytes."""
        for number in range(self.set):
            mark = cython.address(self.mark[number])
            if mark.hpa < hpa + size and hpa < mark.hpa + mark.size:
                for at in range(size):
                    if mark.hpa <= hpa + at < mark.hpa + mark.size:
                        byte = mark.value >> 8 * (hpa + at - mark.hpa) & BYTE
                        mask = BYTE
                        value = value & ~(mask << 8 * at) | byte << 8 * at
        return value

    def entries(self) -> list[tuple[int, int, int, int]]:
        """Of each entry seen: where it lies in host memory, its size, what it was, what the walk makes it."""
        found = []
        for number in range(self.seen):
            seen = self.entry[number]
            found.append((seen.hpa, seen.size, seen.value, self.marked(seen.hpa, seen.size, seen.value)))
        return found

    def leave_out(self, hpa: int, size: int) -> None:
        """Another CPU has stored there meanwhile: of these bytes nothing is known."""
        kept = 0
        for number in range(self.seen):
            seen = self.entry[number]
            if seen.hpa + seen.size <= hpa or seen.hpa >= hpa + size:
                self.entry[kept] = seen
                kept += 1
        self.seen = kept
