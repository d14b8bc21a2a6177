# SPDX-License-Identifier: GPL-2.0-only
"""The CPU's side of a replay: what it can reach through the shadow tables, and what it stores there without an exit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from shadowmmu import Vcpu, Vm
from shadowmmu.engine.arena.spte import Spte
from shadowmmu.hardware.path import PathEntry, path
from shadowmmu.trace.events import AnyEvent, LoadPgd, NestedVmexitInject, PagingElement
from shadowmmu.x86.control import Cr0, Cr3, Cr4, Efer, paging_levels
from shadowmmu.x86.pte import Pte

WRITE, USER = int(Pte.WRITABLE), int(Pte.USER)
MARK = int(Spte.MMIO) & ~int(Pte.PRESENT)
"""The reserved bit of an MMIO mark."""
ACCESSED, ACCESSED_DIRTY = int(Pte.ACCESSED), int(Pte.ACCESSED | Pte.DIRTY)
_Read = Callable[[int, int], int | None]
"""(physical address, size) -> entry; None: not reachable."""


class ReplayedCpu:
    """The processor that runs the guest on the tables of one vCPU's MMU."""

    def __init__(self, vm: Vm, vcpu: Vcpu, nested_paging: bool, foreign_l1: bool) -> None:
        self.vm = vm
        self.vcpu = vcpu
        self.nested_paging = nested_paging
        """The hardware walks the guest's own tables, and ours below them."""
        self.foreign_l1 = foreign_l1
        """L1 runs on tables of another MMU, which are taken to map all memory."""
        self.poked: Callable[[int, bytes], None] = lambda _hpa, _data: None
        """Told of what the CPU stores on its own: host physical address, bytes."""
        self.stored: Callable[[int, int], None] = lambda _hpa, _size: None
        """Told of a plain store of the guest, or a part of it within one page: host physical address, bytes."""
        self.root = 0
        self.level = 0
        self.missed = 0
        """Address of the last walk of the shadow tables."""
        self.found = 0
        """The entry at which it ended."""
        self.passed: list[int] = []
        """Host physical addresses of the entries that it used, but for PDPTEs of PAE paging."""

    def translate(self, gva: int, write: bool = False, user: bool = False) -> int | None:
        """Host physical address that an access reaches now; None: it would fault."""
        if not self.nested_paging:
            return self._shadow(gva, write, user)
        gpa = self._guest(gva)
        return None if gpa is None else self._nested(gpa, write)

    def _nested(self, gpa: int, write: bool) -> int | None:
        if self.foreign_l1 and not self.vcpu.guest_mode:
            self.passed = []
            hpa: int | None = self.vm.host_address(gpa)
            return hpa
        return self._shadow(gpa, write, False)

    def _shadow(self, address: int, write: bool, user: bool) -> int | None:
        """Walk the loaded shadow tables. Rights come from every level, but not from PDPTEs of PAE paging."""
        self.missed = address
        self.passed = []
        for entry in path(self._read_host, self.root, self.level, address):
            self.found = entry.value
            is_pdpte = self.level == entry.level == 3
            if not entry.present or not (is_pdpte or _allows(entry.value, write, user)):
                return None
            if not is_pdpte:
                self.passed.append(entry.at)
            if entry.leaf:
                return None if entry.value & MARK else entry.address(address)
        return None

    def _read_host(self, hpa: int, _size: int) -> int:
        return int(self.vm.read_host_u64(hpa))

    def reaches(self, address: int, write: bool, user: bool) -> bool:
        """The shadow tables lead an access to memory."""
        return self._shadow(address, write, user) is not None

    def is_unlinked(self, address: int) -> bool:
        """Whether the shadow tables have no entry at all for an address, not even a mark of MMIO."""
        return self._shadow(address, False, False) is None and not self.found

    def _read_entry(self, gpa: int, size: int) -> int | None:
        """An entry of the guest's tables as the hardware reads it: L2's through shadow NPT."""
        hpa = self.vm.host_address(gpa) if not self.vcpu.guest_mode else self._shadow(gpa, False, False)
        if hpa is None:
            return None
        value: int = int.from_bytes(self.vm.read_host(hpa, size), "little")
        return value

    def path(self, gva: int, read: _Read, pdptrs: tuple[int, ...] = ()) -> Iterator[PathEntry]:
        """The guest's own tables, down to the last entry there is.

        With `pdptrs` the uppermost entries of PAE paging come from there, as KVM takes them, and not from memory.
        """
        vcpu = self.vcpu
        levels = paging_levels(vcpu.cr0, vcpu.cr4, vcpu.efer)
        return path(read, vcpu.cr3, levels, gva, pse=bool(vcpu.cr4 & Cr4.PSE), pdptes=pdptrs)

    def _guest(self, gva: int) -> int | None:
        """The guest's own translation."""
        if not self.vcpu.cr0 & Cr0.PG:
            return gva
        last = next(reversed(list(self.path(gva, self._read_entry))), None)
        return last.address(gva) if last is not None and last.present and last.leaf else None

    def guest_refuses(self, gva: int, user: bool) -> bool:
        """With nested paging: whether the guest's own tables forbid a store, so that it faulted without an exit."""
        if not self.nested_paging:
            return False
        protect = user or bool(self.vcpu.cr0 & Cr0.WP)
        legacy_pae = bool(self.vcpu.cr4 & Cr4.PAE) and not self.vcpu.efer & Efer.LMA
        for entry in self.path(gva, self._read_entry):
            is_pdpte = legacy_pae and entry.level == 3
            if not entry.present or not (is_pdpte or _allows(entry.value, protect, user)):
                return True
        return False

    def store(self, gva: int, data: bytes, user: bool) -> bool:
        """A plain store of the guest; False: our tables do not allow it."""
        parts: dict[int, tuple[int, int]] = {}
        for i in range(len(data)):
            hpa = self.translate(gva + i, True, user)
            if hpa is None:
                return False
            self._set_bits(True)
            self.vm.write_host(hpa, data[i : i + 1])
            first, size = parts.get(hpa >> 12, (hpa, 0))
            parts[hpa >> 12] = first, size + 1
        for first, size in parts.values():
            self.stored(first, size)
        return True

    def load(self, gva: int, size: int, user: bool) -> bytes | None:
        """A plain load; None: our tables do not allow it."""
        out = b""
        for i in range(size):
            hpa = self.translate(gva + i, False, user)
            if hpa is None:
                return None
            self._set_bits(False)
            out += self.vm.read_host(hpa, 1)
        return out

    def _set_bits(self, write: bool) -> None:
        """Set A in the shadow entries of the last walk, and D in the leaf if it is written: a later write looks at them."""
        for at in self.passed:
            bits = ACCESSED_DIRTY if write and at == self.passed[-1] else ACCESSED
            entry = self.vm.read_host_u64(at)
            if entry & bits != bits:
                self.vm.write_host(at, (entry | bits).to_bytes(8, "little"))

    def take_bits(self, gva: int, walk: Iterable[AnyEvent], pdptrs: tuple[int, ...]) -> None:
        """With nested paging the CPU sets A and D in the guest's tables on its own: take those that `walk` then saw."""
        seen = [event for event in walk if isinstance(event, PagingElement)]
        at = 0
        size = 4 if not self.vcpu.cr4 & Cr4.PAE else 8
        for entry in self.path(gva, self._read_entry, pdptrs):
            while at < len(seen) and (seen[at].level != entry.level or (seen[at].pte ^ entry.value) & ~ACCESSED_DIRTY):
                at += 1
            if at == len(seen):
                return
            if seen[at].pte != entry.value:
                self._poke(entry.at, size, entry.value | seen[at].pte & ACCESSED_DIRTY)

    def refused_pdpte(self, gva: int, rest: Sequence[AnyEvent]) -> int | None:
        """Whether the PDPTEs in memory, which KVM takes before it walks PAE tables under nested paging, were illegal: then
        the address of one that is present. `rest` are the events from the walk to the next entry.

        QEMU's TCG sets bit 5 of a PDPTE that it uses, where a CPU must not. It shows: the old PDPTEs are walked with, or
        no root is loaded anew.
        """
        vcpu = self.vcpu
        if paging_levels(vcpu.cr0, vcpu.cr4, vcpu.efer) != 3:
            return None
        top = next(iter(self.path(gva, self._read_entry)), None)
        walked = any(isinstance(ev, PagingElement) and ev.level == 3 and top and not (ev.pte ^ top.value) & ~ACCESSED for ev in rest)
        if walked and any(isinstance(ev, LoadPgd | NestedVmexitInject) for ev in rest):
            return None
        table = vcpu.cr3 & int(Cr3.PAE_TABLE_MASK)
        return next((at for at in range(table, table + 32, 8) if (self._read_entry(at, 8) or 0) & Pte.PRESENT), None)

    def mark(self, gpa: int, accessed: bool) -> None:
        """Set or clear A in an entry of the guest."""
        value = self._read_entry(gpa, 1)
        if value is not None:
            self._poke(gpa, 1, value | ACCESSED if accessed else value & ~ACCESSED)

    def _poke(self, gpa: int, size: int, value: int) -> None:
        hpa = self.vm.host_address(gpa) if not self.vcpu.guest_mode else self._shadow(gpa, False, False)
        if hpa is not None:
            self.vm.write_host(hpa, value.to_bytes(size, "little"))
            self.poked(hpa, value.to_bytes(size, "little"))


def _allows(entry: int, write: bool, user: bool) -> bool:
    return not (write and not entry & WRITE) and not (user and not entry & USER)
