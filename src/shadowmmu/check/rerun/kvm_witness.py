# SPDX-License-Identifier: GPL-2.0-only
"""Tells the exits and injections of a rerun's vCPU as KVM's events, and sees to what KVM and the captured CPU do beside them."""

from __future__ import annotations

from typing import Protocol

from iced_x86 import Mnemonic

from shadowmmu import Vcpu
from shadowmmu.check.replayed.inputs import INIT_CR0
from shadowmmu.check.rerun.captured_cpu import CapturedCpu
from shadowmmu.check.rerun.memory import EmulatorMemory
from shadowmmu.check.rerun.pdptes import Pdptes
from shadowmmu.machine.emulator.decode import Fetcher, Operands
from shadowmmu.machine.memory.linear_memory import Event
from shadowmmu.machine.seam import Exit, ExitKind
from shadowmmu.machine.vcpu.pending import Origin, Pending
from shadowmmu.machine.vcpu.witness import Witness
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.fields import Word
from shadowmmu.x86.control import Cr0
from shadowmmu.x86.vmcb import SvmExit

_CONTROL = (0, 3, 4, 8)
"""Control registers whose reads and writes leave the guest under KVM; CR2 is the guest's own."""
_SVM_EXITS = SvmExit.VMRUN, SvmExit.VMMCALL, SvmExit.INVLPGA
TOLD_EXITS = frozenset(
    (*(base + cr for base in (SvmExit.CR_READ, SvmExit.CR_WRITE) for cr in _CONTROL), SvmExit.INVLPG, SvmExit.MSR, *_SVM_EXITS)
)
"""Exits with an event of their own, beside page faults."""
_CR_EXITS = {ExitKind.CR_READ: SvmExit.CR_READ, ExitKind.CR_WRITE: SvmExit.CR_WRITE}
_EMULATED = frozenset((ExitKind.CR_READ, ExitKind.CR_WRITE, ExitKind.INVLPG))
"""Exits whose instruction KVM leaves to its emulator, unless they are this machine's own."""
INIT_RIP = 0xFFF0
_NO_CODE = -1
"""Of an exit that is not told by its code."""


class Listener(Protocol):
    """Takes events of the vCPU loop, in order with those of the MMU."""

    def tell(self, event: AnyEvent) -> None: ...

    def tell_injection(self, event: e.InjException) -> None: ...

    def exited(self) -> None: ...

    def faults(self) -> None:
        """A page fault is about to be served."""

    def take_return(self) -> AnyEvent | None:
        """Take the return of a fault back."""


class KvmWitness(Witness):
    """Of one vCPU.

    memory   as KVM's emulator sees it
    fetcher  of the instructions at exits: it reads what the CPU has fetched, or through `memory` where KVM emulates
    """

    def __init__(
        self,
        vcpu: Vcpu,
        cpu: CapturedCpu,
        memory: EmulatorMemory,
        fetcher: Fetcher,
        pdptes: Pdptes,
        listener: Listener,
    ) -> None:
        self._vcpu, self._cpu, self._memory, self._fetcher, self._pdptes = vcpu, cpu, memory, fetcher, pdptes
        self._listener, self._tell = listener, listener.tell
        self._skipper = Fetcher(memory)
        self._returned: AnyEvent | None = None
        self.entered_on: tuple[int | None, int] = None, 0
        """Root of the tables that the guest was last entered on, and its level."""

    def entered(self) -> None:
        self.entered_on = self._vcpu.root, self._vcpu.levels[1]

    # --- exits

    def exited(self, exit_: Exit) -> None:
        self._listener.exited()
        if exit_.kind in (ExitKind.PAGE_FAULT, ExitKind.NESTED_PAGE_FAULT):
            self._listener.faults()
        self._pdptes.hide()
        code = _exit_code(exit_)
        if code in TOLD_EXITS and not self._changes_nothing(exit_):
            info = exit_.number if exit_.kind is ExitKind.MSR else 0
            self._tell(e.Exit(exit_reason=Word(code), guest_rip=self._rip(), info1=Word(info), info2=Word(0)))
            if exit_.kind in _EMULATED:
                self._fetcher.memory = self._memory
        elif exit_.kind is ExitKind.PAGE_FAULT and not self._vcpu.vm.tdp:
            self._tell_fault(exit_.gva, exit_.error_code)

    def _rip(self) -> Word:
        return Word(self._cpu.state().rip)

    def _changes_nothing(self, exit_: Exit) -> bool:
        """A write of CR0 that meets no intercept: where the guest's CR0 is the CPU's, KVM keeps only the selective one (svm_set_cr0)."""
        if exit_.kind is not ExitKind.CR_WRITE or exit_.number:
            return False
        cr0 = self._vcpu.cr0
        own = (cr0 | (0 if self._vcpu.vm.tdp else Cr0.PG | Cr0.WP)) & ~(Cr0.CD | Cr0.NW)
        state = self._cpu.state()
        instruction = self._fetcher.decode(state)
        if own != cr0 or instruction.mnemonic != Mnemonic.MOV:
            return False
        value = Operands(instruction, state, self._vcpu.efer).value(1)
        return not (value ^ cr0) & ~int(Cr0.TS | Cr0.MP)

    def emulates(self, address: int) -> None:
        self._listener.take_return()  # the emulator's own, which has none here
        direct = self._vcpu.vm.tdp and self._vcpu.mmu_name == "root"
        self._memory.begin_emulation(address if direct else None)

    def shuts_down(self, at_entry: bool) -> None:
        """What KVM finds itself it finds once requests are served. Upon a shutdown of the CPU it resets the vCPU, and is done."""
        if at_entry:
            self._vcpu.enter()
        else:
            self._vcpu.set_sregs(INIT_CR0, 0, 0, 0)
            state = self._cpu.state().copy()
            state.rip = INIT_RIP
            self._cpu.set_state(state)

    def leaves_l2(self, code: int, info_1: int, info_2: int) -> None:
        self._returned = self._listener.take_return() if code == SvmExit.NESTED_PAGE_FAULT else None
        self._tell(e.NestedVmexitInject(exit_code=Word(code), exit_info1=Word(info_1), exit_info2=Word(info_2)))

    def left_l2(self) -> None:
        """KVM has left L2 in the midst of a fault."""
        if self._returned is not None:
            self._tell(self._returned)

    # --- events

    def delivers(self, pending: Pending) -> None:
        if pending.origin is Origin.VMRUN:
            self._pdptes.hide()  # L2's
        elif pending.origin is Origin.KVM:
            self._tell_injection(pending.event, again=False)

    def delivery_faults(self, gva: int, code: int) -> None:
        self._listener.exited()
        self._listener.faults()
        self._tell_fault(gva, code)

    def _tell_fault(self, gva: int, code: int) -> None:
        self._tell(e.PageFault(guest_rip=self._rip(), fault_address=Word(gva), error_code=Word(code)))

    def delivers_again(self, pending: Pending) -> None:
        """An instruction is decoded, in order to be skipped, as this CPU does not save the next RIP."""
        if pending.event.software:
            self._skipper.decode(self._cpu.state())
        self._tell_injection(pending.event, again=True)

    def _tell_injection(self, event: Event, again: bool) -> None:
        if event.is_exception:
            has = event.pushes_error_code
            code = event.error_code if has else 0
            told = e.InjException(exception=Word(event.vector), has_error=Word(has), error_code=Word(code), reinjected=Word(again))
            (self._tell if again else self._listener.tell_injection)(told)


def _exit_code(exit_: Exit) -> int:
    if exit_.kind in _CR_EXITS:
        return int(_CR_EXITS[exit_.kind]) + exit_.number
    if exit_.kind is ExitKind.MSR:
        return int(SvmExit.MSR)
    return exit_.number if exit_.kind in (ExitKind.INVLPG, ExitKind.SVM) else _NO_CODE
