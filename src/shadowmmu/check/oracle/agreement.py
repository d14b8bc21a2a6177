# SPDX-License-Identifier: GPL-2.0-only
"""I11: what a vCPU's TLB and paging-structure caches hold at VM entry, the shadow tables still allow.

A missing flush shows the moment the vCPU runs again, not when the guest happens to use the address. Tables may allow
more than is cached; less of a right that is cached, another address, or nothing, was to be flushed. Entries of another
PCID are looked at when it is loaded.

I12: when the guest has flushed, no table below the root that it enters with is unsync: its shadow is of now.
"""

from collections.abc import Callable

from shadowmmu.check.oracle.oracle import VirtualTlb
from shadowmmu.hardware.cpu import ModelCpu
from shadowmmu.hardware.host_memory import Violation


class Agreement:
    """Watches the TLB of one model CPU."""

    def __init__(self, cpu: ModelCpu, tlb: VirtualTlb, unsync_below: Callable[[int], bool]) -> None:
        self.cpu, self.tlb, self.unsync_below = cpu, tlb, unsync_below
        cpu.entered = self.check

    def check(self) -> None:
        """Raises a violation for the first thing cached that should have been flushed, or a table that should have been synced."""
        if self.tlb.flushed:
            self.tlb.flushed = False
            if self.unsync_below(self.cpu.root):
                raise Violation(f"{self.tlb.name}: I12: has flushed, and enters the guest with unsync tables below root {self.cpu.root:#x}")
        for gva, kind, entry in self.cpu.tlb.changed(self.cpu.tag, self.cpu.memory):
            what = "a table on the way to" if kind == "table" else "the translation of"
            was, now = entry.value, self.cpu.memory.read(entry.pa, 8) & entry.mask
            raise Violation(
                f"{self.tlb.name}: I11: enters the guest with {what} {gva:#x} in its TLB, made of entry {entry.pa:#x} when it was "
                f"{was:#x}, which is {now:#x} now, and no flush was asked for"
            )
