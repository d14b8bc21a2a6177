# SPDX-License-Identifier: GPL-2.0-only
"""What a capture gives to the engine: each input is something that can be done to one VM, and answered by it.

An input is any function of a `ReplayedVm`. Those that a VM with other roots may meet otherwise than the kernel are classes,
so that the VM beside it (`special_roots/special_vm.py`) can tell them apart.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, Protocol, TypeVar

from shadowmmu import EngineError, HostFault, Outcome
from shadowmmu.check.replayed.replayed_vm import ReplayedVm
from shadowmmu.x86.control import Cr0
from shadowmmu.x86.pferr import Pferr

INIT_CR0 = int(Cr0.CD | Cr0.NW | Cr0.ET)
"""After INIT, as which KVM resets the vCPU upon a shutdown of the CPU (APM vol. 2 section 14.1)."""
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Input(Protocol[T_co]):
    """Something that can be done to a VM."""

    def __call__(self, side: ReplayedVm, /) -> T_co: ...


class Answer(Generic[T]):
    """What a VM gave back: a value, or the error that it raised."""

    def __init__(self, value: T | None, error: EngineError | None) -> None:
        self.value = value
        self.error = error

    @property
    def told(self) -> str:
        """For people."""
        return str(self.error) if self.error is not None else self.value.name if isinstance(self.value, Outcome) else str(self.value)

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


def answer(given: Input[T], side: ReplayedVm) -> Answer[T]:
    """Give an input to one VM."""
    try:
        return Answer(given(side) if side.judge is None else side.judge.judged(given, side), None)
    except EngineError as error:
        return Answer(None, error)


class Enter(NamedTuple):
    """The guest is entered: requests are served, a root is loaded, the CPU gets it."""

    def __call__(self, side: ReplayedVm, /) -> None:
        entry = side.vcpu.enter()
        side.cpu.root, side.cpu.level = entry.root, entry.level


class Fault(NamedTuple):
    """A #PF of the shadow tables, or a nested page fault."""

    address: int
    code: int
    rescheduled: int = 0
    """Another task wanted the CPU when so many pages had been synced below a table that was to be linked; 0: none did."""

    def __call__(self, side: ReplayedVm, /) -> Outcome:
        side.vm.reschedule(self.rescheduled)
        try:
            return side.vcpu.page_fault(self.address, self.code)
        except HostFault:
            return Outcome.RETRY
        finally:
            side.vm.reschedule(0)


class Invlpg(NamedTuple):
    """INVLPG, emulated."""

    address: int

    def __call__(self, side: ReplayedVm, /) -> None:
        side.vcpu.invlpg(self.address)


class Unprotect(NamedTuple):
    """The table at this gfn is no longer to be shadowed; whether it was."""

    gfn: int

    def __call__(self, side: ReplayedVm, /) -> bool:
        return bool(side.vm.unprotect_page(self.gfn))


class UnprotectAddress(NamedTuple):
    """The table at the gfn that a write of this address reaches is no longer to be shadowed; whether it was.

    Without shadowed tables the kernel does not even translate.
    """

    address: int

    def __call__(self, side: ReplayedVm, /) -> bool:
        if not side.vm.counters()["indirect_shadow_pages"]:
            return False
        direct = not side.vcpu.guest_mode and (side.vm.tdp or not side.vcpu.cr0 & Cr0.PG)
        gpa = self.address if direct else side.vcpu.gva_to_gpa(self.address, int(Pferr.WRITE))
        return gpa is not None and bool(side.vm.unprotect_page(gpa >> 12))


class Translate(NamedTuple):
    """The emulator walks the guest's tables for an access (bits of a #PF error code): the gpa, or None if it faults."""

    gva: int
    access: int

    def __call__(self, side: ReplayedVm, /) -> int | None:
        gpa: int | None = side.vcpu.gva_to_gpa(self.gva, self.access)
        return gpa


class WriteEmulated(NamedTuple):
    """The emulator stores; whether there is memory."""

    gpa: int
    data: bytes

    def __call__(self, side: ReplayedVm, /) -> bool:
        return bool(side.vcpu.write_emulated(self.gpa, self.data))


class Inject(NamedTuple):
    """The fault that the emulator's walk found goes to the guest."""

    def __call__(self, side: ReplayedVm, /) -> None:
        side.vcpu.inject()


class ControlRegister(NamedTuple):
    """MOV to CR0, CR3 or CR4, emulated; whether the CPU may have the value."""

    number: int
    value: int

    def __call__(self, side: ReplayedVm, /) -> bool:
        write = {0: side.vcpu.set_cr0, 3: side.vcpu.set_cr3, 4: side.vcpu.set_cr4}[self.number]
        return bool(write(self.value))


class DirtyLog(NamedTuple):
    """KVM_GET_DIRTY_LOG."""

    slot: int

    def __call__(self, side: ReplayedVm, /) -> bytes:
        return bytes(side.vm.get_dirty_log(self.slot))
