# SPDX-License-Identifier: GPL-2.0-only
"""Memory as the CPU itself reaches it while it delivers an event: through the shadow tables, or nested ones.

On hardware with AMD-V, delivery is the CPU's work: its accesses to the IDT, GDT, TSS and stack walk the shadow
tables, and where those do not allow one there is a #PF exit in the middle of the delivery. The same is done here, so
that what the engine sees - faults, counters, stores it is not told of - is what it would see then.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from shadowmmu.engine.face.types import Outcome
from shadowmmu.hardware.second_level import SecondLevelFault
from shadowmmu.machine.devices.mmio_bus import MmioBus
from shadowmmu.machine.memory.cpu_walk import tables_of
from shadowmmu.machine.memory.guest_tables import reported_fault
from shadowmmu.machine.memory.linear_memory import PAGE_SIZE, GuestFault, GuestMemory, NestedFault, Span
from shadowmmu.machine.memory.translations import Translations
from shadowmmu.machine.seam import CpuError
from shadowmmu.x86.pferr import Pferr
from shadowmmu.x86.vectors import PF

if TYPE_CHECKING:
    from shadowmmu import Vcpu

_EMULATED = 1 << 62
"""Marks a located address as guest physical, to be reached by the engine's emulated accesses; else it is a host one."""
_RETRIES = 16  # faults one access may take
_CAUSE = int(Pferr.GUEST_FINAL | Pferr.GUEST_PAGE)


class DeliveryExits(Protocol):
    """What happens where the CPU leaves the guest in the midst of a delivery."""

    def page_fault(self, gva: int, access: int, code: int) -> Outcome:
        """A #PF of the shadow tables."""

    def nested_page_fault(self, gpa: int, code: int) -> Outcome: ...

    def reenter(self) -> None:
        """It is mended."""


class CpuMemory(GuestMemory):
    """`on_host_store(hpa, size)` hears of stores to host memory.

    `translations`: those that the CPU keeps; the engine has them flushed.
    """

    def __init__(
        self,
        vcpu: "Vcpu",
        on_store: Callable[[int, int], None],
        on_host_store: Callable[[int, int], None],
        exits: DeliveryExits,
        translations: Translations,
        mmio: MmioBus | None = None,
    ) -> None:
        super().__init__(vcpu, on_store, mmio=mmio)
        self._on_host_store, self._exits = on_host_store, exits
        self._tables = tables_of(vcpu)
        self._pages = translations

    def begin(self) -> None:
        """A new delivery."""
        self._pages.begin(self.vcpu)

    def translate(self, gva: int, access: int) -> int:
        """Where `gva` leads, marked by `_EMULATED` or not; raises the guest's #PF."""
        page = self._pages.find(gva // PAGE_SIZE, access)
        if page is None:
            page = self._find(gva, access) & -PAGE_SIZE
            self._pages.keep(gva // PAGE_SIZE, access, page)
        return page | gva % PAGE_SIZE

    def _find(self, gva: int, access: int) -> int:
        for _ in range(_RETRIES):
            try:
                place = self._tables.walk(gva, access)
                if place >= 0:
                    return place
                outcome = self._page_fault(gva, access, ~place)
            except SecondLevelFault as fault:
                outcome = self._nested_page_fault(fault)
            if outcome is Outcome.EMULATE:
                self._pages.fault_again()
                return super().translate(gva, access) | _EMULATED
            self._exits.reenter()
        raise CpuError(f"the engine makes no progress with an access to {gva:#x} in an event delivery; report this as a bug")

    def _page_fault(self, gva: int, access: int, code: int) -> Outcome:
        """With nested paging it is the guest's own, and no exit."""
        if self.vcpu.vm.tdp:
            raise GuestFault(PF, code, gva, reported=True)
        self._pages.clear()
        outcome = self._exits.page_fault(gva, access, code)
        if outcome is Outcome.INJECT:
            fault = reported_fault(self.vcpu)
            raise GuestFault(PF, fault.error_code, fault.cr2, reported=True)
        return outcome

    def _nested_page_fault(self, fault: SecondLevelFault) -> Outcome:
        self._pages.clear()
        outcome = self._exits.nested_page_fault(fault.gpa, fault.code)
        if outcome is Outcome.INJECT:
            raise NestedFault(fault.gpa, fault.code & _CAUSE | reported_fault(self.vcpu).error_code, reported=True) from None
        return outcome

    def load(self, span: Span) -> int:
        if span[0][0] & _EMULATED or span[-1][0] & _EMULATED:
            return sum(self._load_part(*part) << 8 * at for at, part in _offsets(span))
        data = b"".join(self.vcpu.vm.read_host(hpa, size) for hpa, size in span)
        return int.from_bytes(data, "little")

    def _load_part(self, place: int, size: int) -> int:
        if place & _EMULATED:
            return super().load(((place & ~_EMULATED, size),))
        return int.from_bytes(self.vcpu.vm.read_host(place, size), "little")

    def store(self, span: Span, value: int) -> None:
        for at, (place, size) in _offsets(span):
            part = value >> 8 * at & (1 << 8 * size) - 1
            if place & _EMULATED:
                super().store(((place & ~_EMULATED, size),), part)
            else:
                self.vcpu.vm.write_host(place, part.to_bytes(size, "little"))
                self._on_host_store(place, size)


def _offsets(span: Span) -> list[tuple[int, tuple[int, int]]]:
    """The parts of a span with their byte offsets in it."""
    if len(span) == 1:
        return [(0, span[0])]
    return [(0, span[0]), (span[0][1], span[1])]
