"""Compares dumps of the shadow tables with ours, entry by entry."""

from __future__ import annotations

from typing import NamedTuple

from shadowmmu import Vm
from shadowmmu.check.replay.capture import Dump
from shadowmmu.check.replay.ignore import CPU_BITS, PAE_ROOT_BITS
from shadowmmu.check.replay.match import Matcher
from shadowmmu.trace.fields import FRAME_BITS

P, LARGE, PRESENT = 1, 0x80, 1 << 11
_SOFT = 0xFFF0_0000_0000_0000
"""High bits: MMIO marks have some, links to bare tables none."""


class Difference(NamedTuple):
    text: str
    table: int
    """Host physical address of our table."""


class DumpComparison:
    """One dump against the tables below one root."""

    def __init__(self, vm: Vm, matcher: Matcher, dump: Dump) -> None:
        self.vm = vm
        self.matcher = matcher
        self.theirs: dict[int, dict[int, int]] = {}
        for entry in dump.entries:
            self.theirs.setdefault(entry.table & FRAME_BITS, {})[entry.index] = entry.value
        self.top = dump.level
        self.entries = 0

    def run(self, kernel: int, engine: int, level: int) -> Difference | None:
        """The first difference at or below two tables; where there is none the CPU's own bits are taken over."""
        kernel, engine = kernel & FRAME_BITS, engine & FRAME_BITS
        if not self.matcher.table(kernel, engine):
            return Difference(f"the kernel's table {kernel:x} is another one here", engine)
        theirs = self.theirs.get(kernel, {})
        for index in range(4 if level == self.top == 3 else 512):
            value, ours = theirs.get(index, 0), self.vm.read_host_u64(engine + 8 * index)
            if not value and not ours:
                continue
            self.entries += 1
            found = self._entry(value, ours, level, engine, index)
            if found:
                return found
        return None

    def _entry(self, kernel: int, engine: int, level: int, table: int, index: int) -> Difference | None:
        where = f"level {level} entry {index:03x}"
        if _is_link(kernel, level):
            ignore = CPU_BITS | (PAE_ROOT_BITS if level == self.top == 3 else 0)
            if not _is_link(engine, level) or (kernel ^ engine) & ~FRAME_BITS & ~ignore:
                return Difference(f"{where} is {kernel:x} in the kernel, {engine:x} here", table)
            return self.run(kernel, engine, level - 1)
        if not self.matcher.leaf(kernel, engine, CPU_BITS):
            return Difference(f"{where} is {kernel:x} in the kernel, {engine:x} here", table)
        if kernel & PRESENT and kernel & CPU_BITS & ~engine:
            self.vm.write_host(table + 8 * index, (engine | kernel & CPU_BITS).to_bytes(8, "little"))
        return None


def _is_link(entry: int, level: int) -> bool:
    """An entry that leads to a table: a shadow page's, or of a bare root table (without bit 11)."""
    return bool(entry & P) and level > 1 and not entry & LARGE and (bool(entry & PRESENT) or not entry & _SOFT)
