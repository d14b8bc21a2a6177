# SPDX-License-Identifier: GPL-2.0-only
"""Bit 5 of PDPTEs: the captured CPU sets A there under nested paging, as in other entries, though it is reserved.

Guests see it, and KVM refuses to load such PDPTEs. So it is set when the CPU is to run, and hidden while the machine,
which knows better, handles an exit.
"""

from __future__ import annotations

from collections.abc import Callable

from shadowmmu import Vcpu
from shadowmmu.x86.control import Cr0, Cr4, Efer
from shadowmmu.x86.pte import Pte

_PG, _PAE, _LMA = int(Cr0.PG), int(Cr4.PAE), int(Efer.LMA)
_PRESENT, _ACCESSED = int(Pte.PRESENT), int(Pte.ACCESSED)
_PDPT = 0xFFFF_FFE0
"""The bits of CR3 that say where the PDPTEs lie."""
_NOWHERE = -1


class Pdptes:
    """Those of the guest that runs, on one vCPU. `on_use` hears of each that is marked, and of each walk KVM does with a mark."""

    def __init__(self, vcpu: Vcpu, on_use: Callable[[], None]) -> None:
        self._vcpu, self._on_use = vcpu, on_use
        self._hidden: list[int] = []

    def entered(self, rip: int) -> None:
        """The CPU fetches code at `rip`, without translations from before."""
        self.show()
        vcpu = self._vcpu
        if not self._are_used():
            return
        at = self._table() + (rip >> 30 & 3) * 8
        low = vcpu.vm.read_guest(at, 1)[0]
        if low & _PRESENT and not low & _ACCESSED:
            vcpu.vm.write_guest(at, bytes((low | _ACCESSED,)))
            self._on_use()

    def _are_used(self) -> bool:
        vcpu = self._vcpu
        legacy_pae = vcpu.cr0 & _PG and vcpu.cr4 & _PAE and not vcpu.efer & _LMA
        return bool(vcpu.vm.tdp and legacy_pae) and self._table() != _NOWHERE

    def _table(self) -> int:
        """Where they lie for the VM: an L2's through L1's nested tables."""
        table = int(self._vcpu.cr3) & _PDPT
        walk = self._vcpu.nested_walk(table) if self._vcpu.guest_mode else None
        if walk is None:
            return table
        return _NOWHERE if walk.gpa is None or walk.hva is None else int(walk.gpa)

    def hide(self) -> None:
        """Clear the marks for a while."""
        if not self._are_used():
            return
        table = self._table()
        for at in range(table, table + 32, 8):
            low = self._vcpu.vm.read_guest(at, 1)[0]
            if low & _PRESENT and low & _ACCESSED:
                self._vcpu.vm.write_guest(at, bytes((low & ~_ACCESSED,)))
                self._hidden.append(at)

    def show(self) -> None:
        """Set them again."""
        for at in self._hidden:
            low = self._vcpu.vm.read_guest(at, 1)[0]
            if low & _PRESENT:
                self._vcpu.vm.write_guest(at, bytes((low | _ACCESSED,)))
        self._hidden.clear()
