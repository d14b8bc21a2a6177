# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory as KVM's emulator and the CPU's own fetch see it in a rerun."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from shadowmmu import Vcpu
from shadowmmu.check.rerun.pdptes import Pdptes
from shadowmmu.hardware.second_level import SecondLevelFault
from shadowmmu.machine.memory.cpu_walk import tables_of
from shadowmmu.machine.memory.linear_memory import (
    FETCH,
    PAGE_SIZE,
    SYSTEM,
    USER,
    WRITE,
    GuestFault,
    GuestMemory,
    NoMemory,
    Span,
)
from shadowmmu.x86.vectors import PF

MMIO_BYTE = b"\x5a"
"""What the captures' VMM answers to a load from memory that is not there."""


NOT_YET = -1
"""The guest physical address of a part that has not been walked for."""


class Unwalked(NamedTuple):
    """An access of which KVM walks for a page only when it stores there."""

    first: int
    """The first of its parts."""
    gva: int
    access: int


class EmulatorMemory(GuestMemory):
    """Memory for the emulator. Where there is none, user space is asked: `on_mmio(gpa, size, is_write)`."""

    def __init__(
        self,
        vcpu: Vcpu,
        on_store: Callable[[int, int], None],
        on_mmio: Callable[[int, int, bool], None],
        pdptes: Pdptes,
    ) -> None:
        super().__init__(vcpu, on_store)
        self._on_mmio, self._pdptes = on_mmio, pdptes
        self._fault_gpa: int | None = None
        self._mmio: set[int] = set()
        """Pages that KVM took for MMIO, memory or not, when an operand was last found there."""
        self._unwalked: dict[Span, Unwalked] = {}
        """What KVM walks for when it stores, by what has been located."""

    def begin_emulation(self, gpa: int | None) -> None:
        """`gpa`: where the access that is emulated leads, if a nested page fault told."""
        self._fault_gpa = gpa
        self._unwalked.clear()

    def locate(self, gva: int, size: int, access: int) -> Span:
        """KVM looks whether the address found is the last that was MMIO (vcpu_is_mmio_gpa); not for a load of tables or code.

        A store across two pages walks for the second when the first has been written (emulator_read_write)."""
        room = PAGE_SIZE - gva % PAGE_SIZE
        if size > room and access & WRITE and not access & SYSTEM:
            span = (*self._locate(gva, room, access), (NOT_YET, size - room))
            self._unwalked[span] = Unwalked(1, gva, access)
            return span
        return self._locate(gva, size, access)

    def locate_change(self, gva: int, size: int, access: int) -> Span:
        """KVM walks twice: as a load, and when it writes back. A load that faults tells of a write."""
        try:
            span = self._locate(gva, size, access)
        except GuestFault as fault:
            raise GuestFault(PF, fault.event.error_code | WRITE, fault.event.cr2) from None
        self._unwalked[span] = Unwalked(0, gva, access | WRITE)
        return span

    def _locate(self, gva: int, size: int, access: int) -> Span:
        span = super().locate(gva, size, access)
        operand = not access & (SYSTEM | FETCH)
        for gpa, _ in span:
            (self._mmio.add if operand and self.vcpu.is_mmio_gpa(gpa) else self._mmio.discard)(gpa // PAGE_SIZE)
        return span

    def store(self, span: Span, value: int) -> None:
        unwalked = self._unwalked.pop(span, None)
        if unwalked is None:
            super().store(span, value)
            return
        gva = unwalked.gva
        for part, (gpa, size) in enumerate(span):
            if part >= unwalked.first:
                ((gpa, _),) = self._locate(gva, size, unwalked.access)
            super().store(((gpa, size),), value & (1 << 8 * size) - 1)
            gva, value = gva + size, value >> 8 * size

    def load_memory(self, gpa: int, size: int) -> bytes | None:
        return None if gpa // PAGE_SIZE in self._mmio else super().load_memory(gpa, size)

    def store_memory(self, gpa: int, data: bytes) -> bool:
        return gpa // PAGE_SIZE not in self._mmio and super().store_memory(gpa, data)

    def translate(self, gva: int, access: int) -> int:
        """KVM's emulator does not walk for an address that it knows (emulator_read_write_onepage)."""
        if not access & (SYSTEM | FETCH):
            gpa = self._fault_gpa
            known = gpa if gpa is not None and not (gpa ^ gva) % PAGE_SIZE else self.vcpu.mmio_gpa(gva, access)
            if known is not None:
                return known
        self._pdptes.show()
        try:
            return super().translate(gva, access)
        finally:
            self._pdptes.hide()

    def store_physical(self, gpa: int, data: bytes) -> None:
        """KVM writes a VMCB through a mapping of its own (kvm_vcpu_map), and the MMU does not hear of it."""
        self.vcpu.vm.write_guest(gpa, data)
        self._on_store(gpa, len(data))

    def load_mmio(self, gpa: int, size: int) -> bytes:
        self._on_mmio(gpa, size, False)
        return MMIO_BYTE * size

    def store_mmio(self, gpa: int, data: bytes) -> None:
        self._on_mmio(gpa, len(data), True)


class FetchedCode(GuestMemory):
    """Code that the CPU has just fetched by itself, read as it did: the MMU hears nothing of it."""

    def __init__(self, vcpu: Vcpu) -> None:
        super().__init__(vcpu, lambda _gpa, _size: None)
        self._tables = tables_of(vcpu)

    def fetch(self, gva: int, size: int, user: bool) -> bytes:
        try:
            place = self._tables.walk(gva, FETCH | USER if user else FETCH)
        except SecondLevelFault:
            place = -1
        if place < 0:
            raise NoMemory(f"{gva:#x}")
        code: bytes = self.vcpu.vm.read_host(place, size)
        return code
