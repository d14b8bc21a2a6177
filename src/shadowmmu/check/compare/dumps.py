# SPDX-License-Identifier: GPL-2.0-only
"""Compares dumps of the shadow tables with ours, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from shadowmmu import Vm
from shadowmmu.captures.capture import Dump
from shadowmmu.check.compare.ignore import CPU_BITS, LAZY_BITS, MARK_BITS, PAE_ROOT_BITS
from shadowmmu.check.compare.match import Matcher
from shadowmmu.engine.arena.spte import Spte
from shadowmmu.hardware.path import path
from shadowmmu.trace.fields import FRAME_BITS
from shadowmmu.x86.pte import Pte

P, LARGE, PRESENT, ACCESSED = int(Pte.PRESENT), int(Pte.PAGE_SIZE), int(Spte.MMU_PRESENT), int(Pte.ACCESSED)
NOTHING = 0, int(Spte.NONPRESENT_BIT_63)
"""Entries in which there is nothing, on one kernel or another."""
_SOFT = 0xFFF0_0000_0000_0000
"""High bits: MMIO marks have some, links to bare tables none."""


class Difference(NamedTuple):
    text: str
    table: int
    """Host physical address of our table."""


class DumpComparison:
    """One dump against the tables below one root.

    `cpu_bits`: those that the captured CPU set on its own, and ours did not: they are taken over. One that we have and the
    kernel has not is a difference. Of a dump that was taken while the host `aged` pages A tells nothing: it was cleared before, or
    after.
    """

    def __init__(self, vm: Vm, matcher: Matcher, dump: Dump, cpu_bits: int = CPU_BITS, aged: bool = False) -> None:
        self.vm = vm
        self.matcher = matcher
        self.dump = dump
        self.cpu_bits = cpu_bits
        self.unknown = ACCESSED if aged else 0
        self.theirs: dict[int, dict[int, int]] = {}
        for entry in dump.entries:
            self.theirs.setdefault(entry.table & FRAME_BITS, {})[entry.index] = entry.value
        self.nothing = None if dump.nothing is None else {table & FRAME_BITS: value for table, value in dump.nothing.items()}
        self.entries = 0
        self.taken_over = 0
        """Entries that got such bits."""

    def run(self, engine: int) -> Difference | None:
        """The first difference below the dumped root and ours; where there is none the CPU's own bits are taken over."""
        return self._table(self.dump.root, engine, self.dump.level)

    def _table(self, kernel: int, engine: int, level: int) -> Difference | None:
        kernel, engine = kernel & FRAME_BITS, engine & FRAME_BITS
        if not self.matcher.table(kernel, engine):
            return Difference(f"the kernel's table {kernel:x} is another one here", engine)
        nothing = self._nothing(kernel, engine)
        theirs = self.theirs.get(kernel, {})
        ours = self.vm.used_words(engine, 4 if level == self.dump.level == 3 else 512, nothing)
        for index in sorted(theirs.keys() | ours.keys()):
            self.entries += 1
            found = self._entry(theirs.get(index, nothing), ours.get(index, nothing), level, engine, index)
            if found:
                return found
        return None

    def _nothing(self, kernel: int, engine: int) -> int:
        """What an entry of this table holds in which there is nothing: as the dump tells, or else as it must be on this kernel."""
        if self.nothing is not None:
            return self.nothing.get(kernel, 0)
        return self.vm.nothing_in(engine)

    def _entry(self, kernel: int, engine: int, level: int, table: int, index: int) -> Difference | None:
        where = f"level {level} entry {index:03x}"
        if is_link(kernel, level):
            ignore = self.cpu_bits | (PAE_ROOT_BITS if level == self.dump.level == 3 else 0)
            if not is_link(engine, level) or (kernel ^ engine) & ~FRAME_BITS & ~ignore:
                return Difference(f"{where} is {kernel:x} in the kernel, {engine:x} here", table)
            return self._table(kernel, engine, level - 1)
        lost = engine & self.cpu_bits & ~self.unknown & ~kernel if kernel & PRESENT else 0
        if lost or not self.matcher.leaf(kernel, engine, self.cpu_bits | self.unknown):
            return Difference(f"{where} is {kernel:x} in the kernel, {engine:x} here", table)
        marked = kernel & self.cpu_bits & ~self.unknown & ~engine
        if kernel & PRESENT and marked:
            self.taken_over += 1
            self.vm.write_host(table + 8 * index, (engine | marked).to_bytes(8, "little"))
        return None


def is_link(entry: int, level: int) -> bool:
    """An entry that leads to a table: a shadow page's, or of a bare root table (without bit 11)."""
    return bool(entry & P) and level > 1 and not entry & LARGE and (bool(entry & PRESENT) or not entry & _SOFT)


class LeafComparison:
    """What every address maps to, whatever tables lead there: for root designs whose upper tables differ.

    Ours may lack what hangs below a special page, which links its entries when they are needed, and may then map
    more at once, as pages about a fault are mapped with it, or by a smaller page, as while the slot's writes are logged.
    """

    def __init__(self, vm: Vm, matcher: Matcher, dump: Dump) -> None:
        self.vm = vm
        self.matcher = matcher
        self.dump = dump
        self.entries = 0
        self.theirs: dict[tuple[int, int], int] = {}
        for entry in dump.entries:
            self.theirs[entry.table & FRAME_BITS, entry.index] = entry.value

    def run(self, engine: int) -> Difference | None:
        """The first address that the two map otherwise, below the dumped root and ours."""
        kernel = self._leaves(self.dump.root & FRAME_BITS, self.dump.level, 0, lambda table, i: self.theirs.get((table, i), 0))
        ours = self._leaves(engine & FRAME_BITS, self.dump.level, 0, lambda table, i: self.vm.read_host_u64(table + 8 * i))
        for address in sorted(kernel.keys() | ours.keys()):
            left, right = kernel.get(address, (0, 0)), ours.get(address, (0, 0))
            self.entries += 1
            if not left[0] or (not right[0] and self._is_unlinked(engine, address)):
                continue
            smaller = LARGE if right[1] < left[1] else 0
            if right[1] > left[1] or not self.matcher.leaf(left[0], right[0], CPU_BITS | LAZY_BITS | smaller, MARK_BITS):
                return Difference(f"address {address:x} maps by {left[0]:x} in the kernel, by {right[0]:x} here", engine)
        return None

    def _is_unlinked(self, root: int, address: int) -> bool:
        """Whether the way to an address ends in a special page, which gets its entries only when they are needed."""
        last = list(path(lambda hpa, _size: self.vm.read_host_u64(hpa), root, self.dump.level, address))[-1]
        view = self.vm.shadow_page(last.at) if last.level > 1 and not last.present else None
        return view is not None and bool(view.special)

    def _leaves(self, table: int, level: int, address: int, read: Callable[[int, int], int]) -> dict[int, tuple[int, int]]:
        """Address -> (entry, level) of every last-level entry below a table."""
        found: dict[int, tuple[int, int]] = {}
        for index in range(4 if level == self.dump.level == 3 else 512):
            entry = read(table, index)
            at = address + (index << (9 * level + 3))
            if is_link(entry, level):
                found.update(self._leaves(entry & FRAME_BITS, level - 1, at, read))
            elif entry not in NOTHING:
                found[at] = entry, level
        return found
