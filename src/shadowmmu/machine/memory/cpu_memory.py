"""Memory as the CPU itself reaches it while it delivers an event: through the shadow tables, or nested ones.

On hardware with AMD-V, delivery is the CPU's work: its accesses to the IDT, GDT, TSS and stack walk the shadow
tables, and where those do not allow one there is a #PF exit in the middle of the delivery. The same is done here, so
that what the engine sees - faults, counters, stores it is not told of - is what it would see then.
Walk: APM vol. 2 chapter 5.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from shadowmmu.engine.face.types import Outcome
from shadowmmu.hardware.walk import Features, Npt, SecondLevelFault, paging, walk
from shadowmmu.machine.memory.guest_tables import paging_of
from shadowmmu.machine.memory.linear_memory import PAGE_SIZE, PF, SYSTEM, USER, WRITE, GuestFault, GuestMemory, NestedFault, Span
from shadowmmu.machine.seam import CpuError
from shadowmmu.x86.control import Cr0, Cr4, Efer
from shadowmmu.x86.pferr import Pferr
from shadowmmu.x86.pte import Pte

if TYPE_CHECKING:
    from shadowmmu import Vcpu, Vm

_EMULATED = 1 << 62
"""Marks a located address as guest physical, to be reached by the engine's emulated accesses; else it is a host one."""
_RETRIES = 16  # faults one access may take
_PRESENT, _LARGE, _ADDRESS = int(Pte.PRESENT), int(Pte.PAGE_SIZE), int(Pte.ADDR)
_ACCESSED, _DIRTY = int(Pte.ACCESSED), int(Pte.DIRTY)
_RSVD, _PROTECTION = int(Pferr.RSVD), int(Pferr.PRESENT)
_RIGHTS = int(Pte.WRITABLE | Pte.USER)
_PG, _SMAP = int(Cr0.PG), int(Cr4.SMAP)
_CAUSE = int(Pferr.GUEST_FINAL | Pferr.GUEST_PAGE)
_LONG_MODE = int(Cr0.PG), int(Cr4.PAE), int(Efer.LME | Efer.NXE)
_PAE_RESERVED = 0x7FF << 52  # under PAE paging also bits 52-62 are


class CpuMemory(GuestMemory):
    """With shadow paging. `on_fault(outcome)` counts the exits a delivery takes; `reenter()` does what every guest entry does."""

    def __init__(
        self,
        vcpu: "Vcpu",
        on_store: Callable[[int, int], None],
        on_host_store: Callable[[int, int], None],
        on_fault: Callable[[Outcome], None],
        reenter: Callable[[], None],
    ) -> None:
        super().__init__(vcpu, on_store)
        self._on_host_store, self._on_fault, self._reenter = on_host_store, on_fault, reenter
        self._reserved = ((1 << 52) - 1) & ~((1 << vcpu.vm.host_maxphyaddr) - 1)
        self._pages: dict[tuple[int, int], int] = {}

    def begin(self) -> None:
        """A new delivery: nothing found before holds any longer."""
        self._pages.clear()

    def translate(self, gva: int, access: int) -> int:
        """Where `gva` leads, marked by `_EMULATED` or not; raises the guest's #PF."""
        key = (gva // PAGE_SIZE, access)
        page = self._pages.get(key)
        if page is None:
            page = self._find(gva, access) & -PAGE_SIZE
            self._pages[key] = page
        return page | gva % PAGE_SIZE

    def _find(self, gva: int, access: int) -> int:
        for _ in range(_RETRIES):
            place = self._walk(gva, access)
            if place >= 0:
                return place
            self._pages.clear()
            outcome = self._page_fault(gva, access, ~place)
            if outcome is Outcome.INJECT:
                fault = self.vcpu.exception
                raise GuestFault(PF, fault.error_code, fault.cr2, reported=True)
            if outcome is Outcome.EMULATE:
                return super().translate(gva, access) | _EMULATED
            self._reenter()
        raise self._no_progress(gva)

    @staticmethod
    def _no_progress(gva: int) -> CpuError:
        return CpuError(f"the engine makes no progress with an access to {gva:#x} in an event delivery; report this as a bug")

    def _page_fault(self, gva: int, access: int, code: int) -> Outcome:
        """A #PF exit in the middle of the delivery."""
        lifts_smap = self.vcpu.ac
        self.vcpu.ac = lifts_smap and not access & SYSTEM
        outcome: Outcome = self.vcpu.page_fault(gva, code)
        self.vcpu.ac = lifts_smap
        self._on_fault(outcome)
        return outcome

    def _walk(self, gva: int, access: int) -> int:
        """Host physical address, or the complement (~) of the #PF error code. All accesses but a CPL 3 stack's are supervisor's.

        A and D are set on the way as the CPU sets them, in the shadow entries.
        """
        vcpu = self.vcpu
        table, levels = vcpu.root, vcpu.levels[1]
        code = access & (WRITE | USER)
        if table is None:
            return ~code
        read, rights = vcpu.vm.read_host_u64, _RIGHTS
        reserved = self._reserved | (_PAE_RESERVED if levels == 3 else 0)
        unmarked: list[tuple[int, int]] = []
        for level in range(levels, 0, -1):
            shift = 12 + 9 * (level - 1)
            at = table + (gva >> shift & (3 if level == levels == 3 else 511)) * 8
            entry: int = read(at)
            if not entry & _PRESENT:
                return ~code
            if entry & reserved:
                return ~(code | _PROTECTION | _RSVD)
            if level < 3 or levels > 3:
                rights &= entry
                if not entry & _ACCESSED:
                    unmarked.append((at, entry | _ACCESSED))
            if level == 1 or (entry & _LARGE and level <= 3):
                break
            table = entry & _ADDRESS
        if access & WRITE & ~rights or access & USER & ~rights or self._smap_stops(rights, access):
            return ~(code | _PROTECTION)
        if access & WRITE and not entry & _DIRTY:
            unmarked.append((at, entry | _ACCESSED | _DIRTY))
        for at, marked in unmarked:
            vcpu.vm.write_host(at, marked.to_bytes(8, "little"))
        return entry & _ADDRESS & -(1 << shift) | gva & (1 << shift) - 1

    def _smap_stops(self, rights: int, access: int) -> bool:
        if not rights & USER or access & USER:
            return False
        vcpu = self.vcpu
        return bool(vcpu.cr4 & _SMAP and vcpu.cr0 & _PG and (access & SYSTEM or not vcpu.ac))

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


class NestedCpuMemory(CpuMemory):
    """With nested paging: the CPU walks the guest's own tables, and each address on the way through the nested ones."""

    def _find(self, gva: int, access: int) -> int:
        for _ in range(_RETRIES):
            try:
                return self._two_dimensional(gva, access)
            except SecondLevelFault as fault:
                self._pages.clear()
                outcome: Outcome = self.vcpu.page_fault(fault.gpa, fault.code)
                self._on_fault(outcome)
                if outcome is Outcome.INJECT:
                    raise NestedFault(fault.gpa, fault.code & _CAUSE | self.vcpu.exception.error_code, reported=True) from None
                if outcome is Outcome.EMULATE:
                    return GuestMemory.translate(self, gva, access) | _EMULATED
                self._reenter()
        raise self._no_progress(gva)

    def _two_dimensional(self, gva: int, access: int) -> int:
        """Host physical address; raises the guest's #PF, or SecondLevelFault."""
        vcpu, vm = self.vcpu, self.vcpu.vm
        mode = paging(*_LONG_MODE, Features(maxphyaddr=vm.host_maxphyaddr))
        nested = Npt(mode, _host_reader(vm), _host_writer(vm), vcpu.root)

        def read(gpa: int, size: int) -> int:
            return int.from_bytes(vm.read_host(nested.translate(gpa, WRITE, table=True), size), "little")

        def write(gpa: int, size: int, value: int) -> None:
            vm.write_host(nested.translate(gpa, WRITE, table=True), value.to_bytes(size, "little"))

        lifts_smap = bool(vcpu.ac) and not access & SYSTEM
        found = walk(paging_of(vcpu), read, vcpu.cr3, gva, access & (WRITE | USER), lifts_smap, write=write)
        if isinstance(found, int):
            raise GuestFault(PF, found, gva, reported=True)
        return nested.translate(found.address(gva), access, table=False)


def _host_reader(vm: "Vm") -> Callable[[int, int], int]:
    return lambda hpa, size: int.from_bytes(vm.read_host(hpa, size), "little")


def _host_writer(vm: "Vm") -> Callable[[int, int, int], None]:
    return lambda hpa, size, value: vm.write_host(hpa, value.to_bytes(size, "little"))


def _offsets(span: Span) -> list[tuple[int, tuple[int, int]]]:
    """The parts of a span with their byte offsets in it."""
    if len(span) == 1:
        return [(0, span[0])]
    return [(0, span[0]), (span[0][1], span[1])]
