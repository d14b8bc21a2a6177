# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""What is asked at each VM entry of a model CPU, when what the engine wanted flushed has been.

I11: what the CPU may hold in its TLB and paging-structure caches, the shadow tables still allow. It may hold what it used
(`hardware/tlb`), and whatever the tables allowed when it ran last (`hardware/held`): so a missing flush shows the moment
the vCPU runs again, whoever changed the entry, and not when the guest happens to use the address. Tables may allow more
than is held; less of a right, another address, or nothing, was to be flushed. What another PCID holds is looked at when it is loaded.
The tables may be others altogether only if the guest has loaded them and kept its translations itself.

I12: what the shadow tables allow of the watched addresses, the guest has allowed. Looked at where a way through the tables is
other than at the last entry, and of all addresses when the guest has flushed: then no table below the root is unsync, either,
nor below the roots kept for later if it flushed what it holds with any PCID.
"""

from collections.abc import Callable, Mapping, Sequence

from shadowmmu.check.oracle.virtual_tlb import VirtualTlb
from shadowmmu.hardware.cpu import ModelCpu
from shadowmmu.hardware.held import Held
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.hardware.walk import FETCH, USER, WRITE

KINDS = 0, WRITE, USER, USER | WRITE, FETCH, USER | FETCH


class Agreement:
    """Watches one model CPU. `reach`: the addresses that a guest with so many levels of paging can name."""

    def __init__(
        self,
        cpu: ModelCpu,
        tlb: VirtualTlb,
        unsync_below: Callable[[int], bool],
        watched: Sequence[int],
        reach: Mapping[int, Sequence[int]],
    ) -> None:
        self.cpu, self.tlb, self.unsync_below = cpu, tlb, unsync_below
        self.held = cpu.held = Held(cpu.memory, tuple(watched))
        self.reach = {levels: sum(1 << number for number, gva in enumerate(watched) if gva in some) for levels, some in reach.items()}
        cpu.entered = self.check

    def check(self) -> None:
        """Raises a violation for the first thing held that should have been flushed, or allowed and should not be."""
        flushed, self.tlb.flushed = self.tlb.flushed, False
        every, self.tlb.flushed_all = self.tlb.flushed_all, False
        kept = [root.hpa for root in self.cpu.vcpu.prev_roots] if every else []
        for root in [self.cpu.root, *kept] if flushed else []:
            if self.unsync_below(root):
                self._raise(f"I12: has flushed, and enters the guest with unsync tables below root {root:#x}")
        before = self.held.root(self.cpu.tag)
        if before not in (0, self.cpu.root) and not self.tlb.space.mixed:
            self._raise(f"I11: enters the guest on root {self.cpu.root:#x} with what the TLB holds of root {before:#x}")
        self._check_used()
        stale = self.held.stale(self.cpu.tag)
        if stale is not None:
            self._tell("what it may have walked ahead to", *stale)
        nested = self.cpu.npt_levels != 0
        news = self.held.look(self.cpu.tag, self.cpu.root, self.cpu.mode, self.reach[self.tlb.mode.levels], flushed)
        if not nested or self.cpu.vcpu.guest_mode:
            for gva, shift, page, rights in news:
                self.check_allowed(gva, page | gva & (1 << shift) - 1, rights, KINDS[2:4] + KINDS[5:] if nested else KINDS)

    def _check_used(self) -> None:
        """I11 of what was used."""
        stale = self.cpu.tlb.stale(self.cpu.tag, self.cpu.memory)
        if stale is not None:
            self._tell("a table on the way to" if stale[0] == "table" else "the translation of", *stale[1:])

    def _tell(self, what: str, gva: int, pa: int, was: int, now: int) -> None:
        self._raise(
            f"I11: enters the guest with {what} {gva:#x} in its TLB, made of entry {pa:#x} when it was "
            f"{was:#x}, which is {now:#x} now, and no flush was asked for"
        )

    def _raise(self, what: str) -> None:
        raise Violation(f"{self.tlb.name}: {what}")

    def check_allowed(self, gva: int, hpa: int, rights: int, kinds: Sequence[int]) -> None:
        """I12: each access that the shadow lets through, of a guest that has not set EFLAGS.AC, if that is enough."""
        mode = self.cpu.mode
        for access in kinds:
            if mode.permits(rights, access, False):
                self._completed(gva, access, False, hpa)
            elif mode.permits(rights, access, True):
                self._completed(gva, access, True, hpa)

    def _completed(self, gva: int, access: int, ac: bool, hpa: int) -> None:
        if not self.tlb.lets(gva, access, ac, hpa):
            self.tlb.completed(gva, access, ac, hpa)
