# SPDX-License-Identifier: GPL-2.0-only
"""The tables of a VM with other roots against those of one with the kernel's roots, entry by entry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from shadowmmu import Vm
from shadowmmu.check.compare.dumps import is_link
from shadowmmu.check.compare.ignore import CPU_BITS, LAZY_BITS
from shadowmmu.check.compare.match import Matcher
from shadowmmu.check.replayed.replayed_vm import ReplayedVm
from shadowmmu.check.special_roots.align import Parting, parted
from shadowmmu.check.special_roots.page_census import Census, Key
from shadowmmu.trace.fields import FRAME_BITS

PRESENT, MAPS = 1, 1 << 11


class Difference(NamedTuple):
    """An entry that is another one in the two VMs."""

    letter: str
    """By which it is explained; empty: it is not."""
    text: str
    table: int
    """Host physical address of our table."""


class PairedTables:
    """Everything below the two loaded roots."""

    def __init__(self, sides: tuple[ReplayedVm, ReplayedVm], censuses: tuple[Census, Census], parting: Parting, matcher: Matcher) -> None:
        self.kernel, self.special = sides
        self.theirs, self.ours = censuses
        self.parting, self.matcher = parting, matcher
        self.entries = 0
        self.seen: set[tuple[int, int]] = set()

    def differences(self) -> Iterator[Difference]:
        """All entries that differ, explained or not; those that are the same get the CPU's bits of the kernel's."""
        if self.kernel.cpu.root and self.special.cpu.root:
            yield from self._tables(self.kernel.cpu.root & FRAME_BITS, self.special.cpu.root & FRAME_BITS, self.kernel.cpu.level, True)

    def _tables(self, theirs: int, ours: int, level: int, top: bool) -> Iterator[Difference]:
        if (theirs, ours) in self.seen:
            return
        self.seen.add((theirs, ours))
        page = self.theirs.name(theirs)
        count = 4 if top and level == 3 else 512
        left, right = _used(self.kernel.vm, theirs, count), _used(self.special.vm, ours, count)
        for index in sorted(left.keys() | right.keys()):
            kernel, special = left.get(index, 0), right.get(index, 0)
            self.entries += 1
            if self._lead_alike(kernel, special, level):
                yield from self._tables(kernel & FRAME_BITS, special & FRAME_BITS, level - 1, False)
            elif self._same(kernel, special, level):
                self._take_bits(kernel, special, ours + 8 * index)
            else:
                text = f"level {level} entry {index:03x} is {kernel:x} in the kernel, {special:x} here"
                yield Difference(self._letter(page, index, kernel, special, level), text, ours)

    def _lead_alike(self, kernel: int, special: int, level: int) -> bool:
        """Both entries lead to the table of the same page."""
        links = is_link(kernel, level) and is_link(special, level)
        return links and self.theirs.name(kernel & FRAME_BITS) == self.ours.name(special & FRAME_BITS)

    def _same(self, kernel: int, special: int, level: int) -> bool:
        return not is_link(kernel, level) and not is_link(special, level) and self.matcher.leaf(kernel, special, CPU_BITS)

    def _take_bits(self, kernel: int, special: int, at: int) -> None:
        """A and D, which the captured CPU has set by an access that no event tells: the same access sets them here."""
        marked = kernel & ~special & CPU_BITS
        if marked and kernel & MAPS:
            self.special.vm.write_host(at, (special | marked).to_bytes(8, "little"))

    def _map_two_frames(self, kernel: int, special: int, level: int) -> bool:
        """Both map something, and not the same."""
        if not kernel & special & MAPS or is_link(kernel, level) or is_link(special, level):
            return False
        return not self.matcher.frames.agree((kernel & FRAME_BITS) >> 12, (special & FRAME_BITS) >> 12)

    def _letter(self, page: Key | None, index: int, kernel: int, special: int, level: int) -> str:
        """What explains an entry that differs."""
        if page is None:
            return "a" if is_link(kernel, level) and not special else ""
        in_step = page not in self.theirs.unsync and page not in self.ours.unsync
        if in_step and self._map_two_frames(kernel, special, level):
            return ""
        if self.parting.has(page, index) or parted(self.theirs, self.ours, page):
            return "g"
        if kernel & special & MAPS and self.matcher.leaf(kernel, special, CPU_BITS | LAZY_BITS):
            gfn = self._gfn(special)
            tables = () if gfn is None else self.theirs.tables.get(gfn, set()) | self.ours.tables.get(gfn, set())
            if any(table in self.parting.pages or parted(self.theirs, self.ours, table) for table in tables):
                return "g"
        return ""

    def _gfn(self, entry: int) -> int | None:
        """The frame of guest memory that an entry maps."""
        for slot in self.special.vm.memslots():
            for gpa in range(slot.gpa, slot.gpa + (0 if slot.address_space else slot.size), 4096):
                if self.special.vm.host_address(gpa) == entry & FRAME_BITS:
                    return gpa >> 12
        return None


def _used(vm: Vm, table: int, count: int) -> dict[int, int]:
    """The entries in which there is something."""
    return vm.used_words(table, count, vm.nothing_in(table))
