# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory by linear address, as an instruction or an event delivery of one vCPU sees it.

Every access is located first: translated page by page, with the fault it would raise. Only then is it done, so an
instruction that is to fault has changed nothing. Memory that is not there reads as all ones and swallows writes.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from shadowmmu.engine.face.types import GuestMemoryError
from shadowmmu.machine.devices.mmio_bus import MmioBus
from shadowmmu.machine.memory.guest_tables import locate_fault, reported_fault
from shadowmmu.machine.seam import MASK32, MASK64
from shadowmmu.machine.unclaimed import Unclaimed
from shadowmmu.x86.control import Cr4, Efer
from shadowmmu.x86.pferr import Pferr
from shadowmmu.x86.vectors import HAS_ERROR_CODE, NAMES, NMI, PF

if TYPE_CHECKING:
    from shadowmmu import Vcpu

PAGE_SIZE = 4096
READ = 0
WRITE = int(Pferr.WRITE)
USER = int(Pferr.USER)
FETCH = int(Pferr.FETCH)
_LMA, _LA57 = int(Efer.LMA), int(Cr4.LA57)
SYSTEM = int(Pferr.IMPLICIT)
"""An access of the CPU itself to GDT, IDT or TSS: supervisor, and EFLAGS.AC does not lift SMAP for it."""


class Event(NamedTuple):
    """An exception, a software interrupt, or an interrupt from outside (NMI too) to deliver.

    `next_rip` is where a trap or software interrupt returns.
    """

    vector: int
    error_code: int = 0
    cr2: int | None = None  # of a #PF
    software: bool = False
    next_rip: int | None = None
    external: bool = False

    @property
    def is_exception(self) -> bool:
        return not self.software and not self.external

    @property
    def is_nmi(self) -> bool:
        return self.external and self.vector == NMI

    @property
    def pushes_error_code(self) -> bool:
        return self.is_exception and self.vector in HAS_ERROR_CODE

    @property
    def name(self) -> str:
        if self.is_exception or self.is_nmi:
            return NAMES.get(self.vector, f"#{self.vector}")
        return f"{'INT' if self.software else 'interrupt'} {self.vector:#x}"


class GuestFault(Exception):
    """What the guest is doing raises an exception. `reported`: it is a #PF and the engine has given it up to the guest."""

    def __init__(self, vector: int, error_code: int = 0, cr2: int | None = None, *, reported: bool = False) -> None:
        super().__init__(f"{NAMES.get(vector, vector)} error code {error_code:#x}" + (f" at {cr2:#x}" if cr2 is not None else ""))
        self.event = Event(vector, error_code, cr2)
        self.reported = reported


class NestedFault(Exception):
    """What L2 is doing meets L1's nested tables, which do not allow it: L1 gets a nested page fault.

    `gpa` is the L2 physical address; `code` is EXITINFO1, with bit 32 or 33 for the final access or a walk of L2's tables.
    `reported`: the engine knows.
    """

    def __init__(self, gpa: int, code: int, *, reported: bool = False) -> None:
        super().__init__(f"L2 physical {gpa:#x}, EXITINFO1 {code:#x}")
        self.gpa, self.code, self.reported = gpa, code, reported


class NoMemory(Exception):
    """An instruction is to be fetched from a guest physical address without memory."""


Span = tuple[tuple[int, int], ...]
"""Where an access goes: (guest physical address, bytes) of each part, one a page."""


class Walker(Protocol):
    """Who walks the guest's tables."""

    def gva_to_gpa(self, gva: int, access: int) -> int | None:
        """Guest physical address; None: the engine has the fault."""


class GuestMemory:
    """`on_store(gpa, size)` is called after each store, for whoever keeps translated code; `mmio` is where no memory is, `unclaimed`
    hears of what nothing answers. `has_la57`: the CPU offers 5-level paging; `walker`: who walks the guest's tables, if not `vcpu`."""

    def __init__(
        self,
        vcpu: "Vcpu",
        on_store: Callable[[int, int], None],
        unclaimed: Unclaimed | None = None,
        mmio: MmioBus | None = None,
        *,
        has_la57: bool = False,
        walker: Walker | None = None,
    ) -> None:
        self.vcpu = vcpu
        self._walker = walker or vcpu
        self.has_la57 = has_la57
        self._on_store = on_store
        self.unclaimed = unclaimed or Unclaimed()
        self.mmio = mmio or MmioBus(self.unclaimed)

    @property
    def mask(self) -> int:
        """Linear addresses are 64 bits wide in long mode, else 32."""
        return MASK64 if self.vcpu.efer & _LMA else MASK32

    def canonical(self, gva: int) -> bool:
        """A 64-bit address whose upper bits are all equal, as the paging mode demands."""
        bits = 57 if self.vcpu.cr4 & _LA57 else 48
        return gva >> (bits - 1) in (0, MASK64 >> (bits - 1))

    def can_be_base(self, value: int) -> bool:
        """A register may hold it as a linear address: canonical in the widest paging mode that the CPU has."""
        bits = 57 if self.has_la57 else 48
        return self.canonical(value) or value >> (bits - 1) in (0, MASK64 >> (bits - 1))

    def translate(self, gva: int, access: int) -> int:
        """Guest physical address of one byte, or the #PF that the access raises. Sets A and D as the CPU does."""
        gpa = self._walker.gva_to_gpa(gva, access)
        if gpa is None:
            fault = reported_fault(self.vcpu)
            if fault.nested:
                where, cause = locate_fault(self.vcpu, gva, fault.cr2)
                raise NestedFault(where, fault.error_code | cause)
            raise GuestFault(PF, fault.error_code, fault.cr2)
        return gpa

    def locate(self, gva: int, size: int, access: int) -> Span:
        """Translate an access of `size` bytes, at most a page."""
        gva &= self.mask
        room = PAGE_SIZE - gva % PAGE_SIZE
        first = self.translate(gva, access)
        if size <= room:
            return ((first, size),)
        return ((first, room), (self.translate((gva + room) & self.mask, access), size - room))

    def locate_change(self, gva: int, size: int, access: int) -> Span:
        """The same for what is read, changed and written back: it must allow both."""
        return self.locate(gva, size, access | WRITE)

    def load(self, span: Span) -> int:
        data = b""
        for gpa, size in span:
            part = self.load_memory(gpa, size)
            data += self.load_mmio(gpa, size) if part is None else part
        return int.from_bytes(data, "little")

    def store(self, span: Span, value: int) -> None:
        data = value.to_bytes(sum(size for _, size in span), "little")
        for gpa, size in span:
            if self.store_memory(gpa, data[:size]):
                self._on_store(gpa, size)
            else:
                self.store_mmio(gpa, data[:size])
            data = data[size:]

    def load_memory(self, gpa: int, size: int) -> bytes | None:
        """None: there is no memory."""
        return self.vcpu.read_emulated(gpa, size)

    def store_memory(self, gpa: int, data: bytes) -> bool:
        """False: there is no memory that may be written."""
        return self.vcpu.write_emulated(gpa, data)

    def load_mmio(self, gpa: int, size: int) -> bytes:
        """What a load finds where there is no memory."""
        return self.mmio.read(gpa, size).to_bytes(size, "little")

    def store_mmio(self, gpa: int, data: bytes) -> None:
        """A store where there is no memory."""
        self.mmio.write(gpa, len(data), int.from_bytes(data, "little"))

    def store_physical(self, gpa: int, data: bytes) -> None:
        """The CPU stores within one page by physical address, as into a VMCB: a page that it uses so is no guest table."""
        self.vcpu.vm.unprotect_page(gpa // PAGE_SIZE)
        with suppress(GuestMemoryError):
            self.vcpu.vm.write_guest(gpa, data)
            self._on_store(gpa, len(data))

    def read(self, gva: int, size: int, access: int) -> int:
        return self.load(self.locate(gva, size, access))

    def fetch(self, gva: int, size: int, user: bool) -> bytes:
        """Code bytes at `gva`, within one page."""
        gpa = self.translate(gva, FETCH | USER if user else FETCH)
        code: bytes | None = self.vcpu.read_emulated(gpa, size)
        if code is None:
            raise NoMemory(f"{gpa:#x}")
        return code
