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


class Pdptes:
    """Those of L1, on one vCPU. `on_use` hears of each that is marked, and of each walk that KVM does with a mark there."""

    def __init__(self, vcpu: Vcpu, on_use: Callable[[], None]) -> None:
        self._vcpu, self._on_use = vcpu, on_use
        self._hidden: list[int] = []

    def entered(self, rip: int) -> None:
        """The CPU fetches code at `rip`, without translations from before."""
        self.show()
        vcpu = self._vcpu
        if not self._are_used():
            return
        at = (vcpu.cr3 & _PDPT) + (rip >> 30 & 3) * 8
        low = vcpu.vm.read_guest(at, 1)[0]
        if low & _PRESENT and not low & _ACCESSED:
            vcpu.vm.write_guest(at, bytes((low | _ACCESSED,)))
            self._on_use()

    def _are_used(self) -> bool:
        vcpu = self._vcpu
        return bool(vcpu.vm.tdp and not vcpu.guest_mode and vcpu.cr0 & _PG and vcpu.cr4 & _PAE and not vcpu.efer & _LMA)

    def hide(self) -> None:
        """Clear the marks for a while."""
        if not self._are_used():
            return
        table = self._vcpu.cr3 & _PDPT
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
