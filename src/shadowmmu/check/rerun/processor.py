"""The vCPU of a rerun: the machine's, under KVM's rules of what leaves the guest, telling its exits as events."""

from __future__ import annotations

from collections.abc import Callable

from iced_x86 import Instruction, Mnemonic

from shadowmmu import Vcpu
from shadowmmu.check.rerun.captured_cpu import ACCESSED_PDPTE, CapturedCpu
from shadowmmu.check.rerun.memory import DeliveryMemory, EmulatorMemory, FetchedCode, NestedDeliveryMemory
from shadowmmu.check.rerun.pdptes import Pdptes
from shadowmmu.machine.emulator.decode import Fetcher
from shadowmmu.machine.emulator.emulation import Emulation
from shadowmmu.machine.intercepts import NESTED_PAGING, SHADOW_PAGING
from shadowmmu.machine.memory.linear_memory import PF, READ, USER, Event
from shadowmmu.machine.seam import Exit, ExitKind, State
from shadowmmu.machine.vcpu.cpuid import Cpuid
from shadowmmu.machine.vcpu.msr import Msrs
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.fields import Word
from shadowmmu.x86.control import Cr0, Rflags
from shadowmmu.x86.vmcb import SvmExit

FEATURES = frozenset(("la57", "svm", "npt"))
"""What the captured guests' CPUID offers beside the usual; CR4 follows the capture's set-up."""
_CONTROL = (0, 3, 4, 8)
"""Control registers whose reads and writes leave the guest under KVM; CR2 is the guest's own."""
_SVM_EXITS = SvmExit.VMRUN, SvmExit.VMMCALL, SvmExit.INVLPGA
TOLD_EXITS = frozenset(
    (*(base + cr for base in (SvmExit.CR_READ, SvmExit.CR_WRITE) for cr in _CONTROL), SvmExit.INVLPG, SvmExit.MSR, *_SVM_EXITS)
)
"""Exits with an event of their own, beside page faults."""
_CR_EXITS = {ExitKind.CR_READ: SvmExit.CR_READ, ExitKind.CR_WRITE: SvmExit.CR_WRITE}
_DELIVERIES = frozenset((ExitKind.EXCEPTION, ExitKind.SOFTWARE_INTERRUPT))
"""Exits of this machine by which it delivers what the CPU delivers by itself under KVM."""
_EMULATED = frozenset((ExitKind.CR_READ, ExitKind.CR_WRITE, ExitKind.INVLPG))
"""Exits whose instruction KVM leaves to its emulator, unless they are this machine's own."""
NO_CODE = -1
"""Of an exit that is not told by its code."""
UNMAPPED_GFN = (1 << 52) - 1
"""The gfn of an address that leads nowhere."""


class CaptureProcessor(Processor):
    """`tell` takes events of the vCPU loop, in order with those of the MMU; `take_return` takes the return of a fault back."""

    cpu: CapturedCpu

    def __init__(
        self,
        vcpu: Vcpu,
        on_store: Callable[[int, int], None],
        on_host_store: Callable[[int, int], None],
        on_mmio: Callable[[int, int, bool], None],
        tell: Callable[[AnyEvent], None],
        take_return: Callable[[], AnyEvent | None],
    ) -> None:
        nested = bool(vcpu.vm.tdp)
        super().__init__(
            vcpu, Cpuid(0, 1, vcpu.vm.maxphyaddr, FEATURES), NESTED_PAGING if nested else SHADOW_PAGING, on_store, on_host_store
        )
        self._tell, self._take_return = tell, take_return
        self.pdptes = Pdptes(vcpu, self._pdpte_marked)
        self.memory: EmulatorMemory = EmulatorMemory(vcpu, on_store, on_mmio, self.pdptes)
        self.fetcher = Fetcher(self.memory)
        self.msrs = Msrs(vcpu, self.memory, 0, svm=True)
        delivery = NestedDeliveryMemory if nested else DeliveryMemory
        self.cpu_memory = memory = delivery(vcpu, on_store, on_host_store, self._fault_in_delivery, self._inject_again)
        if isinstance(memory, DeliveryMemory):
            memory.interrupted = self._interrupted
        self._fetched = FetchedCode(vcpu, memory.find_code)
        self.entered: tuple[int | None, int] = None, 0
        """Root of the tables the guest was last entered on, and its level."""
        self._injected: Event | None = None
        self._by_cpu = False

    def enter(self) -> None:
        """Every guest entry comes by here."""
        super().enter()
        self.entered = self.vcpu.root, self.vcpu.levels[1]

    def step(self) -> Exit:
        self.fetcher.memory = self._fetched
        self.memory.begin_emulation(None)
        self.pdptes.entered(self.cpu.state().rip)
        return super().step()

    def _look_from(self, state: State) -> None:
        """The engine takes PDPTEs from memory when KVM does."""
        self.vcpu.ac = bool(state.rflags & Rflags.AC)

    def _pdpte_marked(self) -> None:
        self.cpu.adapted[ACCESSED_PDPTE] += 1

    # --- exits

    def _reflect(self, exit_: Exit) -> bool:
        """Each exit comes by here, before L1 is asked for one of L2."""
        self.pdptes.hide()
        code = self._exit_code(exit_)
        told = code in TOLD_EXITS and not self._changes_nothing(exit_)
        if told:
            info = exit_.number if exit_.kind is ExitKind.MSR else 0
            self._tell(e.Exit(exit_reason=Word(code), guest_rip=Word(self.cpu.state().rip), info1=Word(info), info2=Word(0)))
        elif exit_.kind is ExitKind.PAGE_FAULT and not self.vcpu.vm.tdp:
            self._tell_fault(exit_.gva, exit_.error_code)
        self.fetcher.memory = self.memory if told and exit_.kind in _EMULATED else self._fetched
        self._by_cpu = exit_.kind in _DELIVERIES or (exit_.kind is ExitKind.PAGE_FAULT and self.vcpu.vm.tdp)
        return super()._reflect(exit_)

    def _injects(self) -> bool:
        return not self._by_cpu

    def _changes_nothing(self, exit_: Exit) -> bool:
        """A write of CR0 that meets no intercept: where the guest's CR0 is the CPU's, KVM keeps only the selective one (svm_set_cr0)."""
        if exit_.kind is not ExitKind.CR_WRITE or exit_.number:
            return False
        cr0 = self.vcpu.cr0
        own = (cr0 | (0 if self.vcpu.vm.tdp else Cr0.PG | Cr0.WP)) & ~(Cr0.CD | Cr0.NW)
        self.fetcher.memory = self._fetched
        state = self.cpu.state()
        instruction = self.fetcher.decode(state)
        if own != cr0 or instruction.mnemonic != Mnemonic.MOV:
            return False
        value = Emulation(instruction, state, self.memory, self.cpu).value(1)
        return not (value ^ cr0) & ~(Cr0.TS | Cr0.MP)

    def leave_l2(self, code: int, info_1: int = 0, info_2: int = 0, interrupted: Event | None = None, at_entry: bool = False) -> None:
        returned = self._take_return() if code == SvmExit.NESTED_PAGE_FAULT else None
        self._tell(e.NestedVmexitInject(exit_code=Word(code), exit_info1=Word(info_1), exit_info2=Word(info_2)))
        super().leave_l2(code, info_1, info_2, interrupted, at_entry)
        if returned is not None:  # KVM leaves L2 in the midst of the fault
            self._tell(returned)

    @staticmethod
    def _exit_code(exit_: Exit) -> int:
        if exit_.kind in _CR_EXITS:
            return int(_CR_EXITS[exit_.kind]) + exit_.number
        if exit_.kind is ExitKind.MSR:
            return int(SvmExit.MSR)
        return exit_.number if exit_.kind in (ExitKind.INVLPG, ExitKind.SVM) else NO_CODE

    def write_register(self, write: Callable[[Processor, int, bool], bool], value: int, in_64_bit_code: bool) -> bool:
        """KVM reads PDPTEs as the captured CPU has left them."""
        self.pdptes.show()
        done = super().write_register(write, value, in_64_bit_code)
        self.pdptes.hide()
        return done

    def next_rip(self, state: State, instruction: Instruction | None = None) -> int:
        """An instruction that is not emulated is decoded in order to be skipped: this CPU does not save the next RIP."""
        if instruction is None:
            self.fetcher.memory = self.memory
        return super().next_rip(state, instruction)

    def emulate(self, address: int) -> None:
        self._take_return()  # the emulator's own, which has none here
        self.fetcher.memory = self.memory
        direct = self.vcpu.vm.tdp and self.vcpu.mmu_name == "root"
        self.memory.begin_emulation(address if direct else None)
        super().emulate(address)

    # --- events

    def deliver_from_vmcb(self, event: Event) -> None:
        self._by_cpu = True
        self.pdptes.hide()
        super().deliver_from_vmcb(event)

    def deliver(self, event: Event) -> None:
        """What KVM injects is part of the guest entry."""
        self._injected = event
        if not self._by_cpu:
            self.enter()
            self._tell_injection(0)
        super().deliver(event)

    def _goes_on_with(self, event: Event, fault: Event) -> None:
        """After a #PF, which leaves the guest, KVM injects what comes of it; after any other fault the CPU goes on by itself."""
        self._injected = event
        if fault.vector == PF and not self.vcpu.vm.tdp:
            self.enter()
            self._tell_injection(0)

    def _interrupted(self, gva: int, code: int) -> int:
        """A #PF exit from a delivery: KVM stops shadowing a table there, so that nothing need be emulated (kvm_handle_page_fault)."""
        code = self.cpu.error_code(code)
        self._tell_fault(gva, code)
        gpa = self.vcpu.gva_to_gpa(gva, USER if self.cpu.state().cpl == 3 else READ)
        self.vcpu.vm.unprotect_page(UNMAPPED_GFN if gpa is None else gpa >> 12)
        return code

    def _tell_fault(self, gva: int, code: int) -> None:
        self._tell(e.PageFault(guest_rip=Word(self.cpu.state().rip), fault_address=Word(gva), error_code=Word(code)))

    def _inject_again(self) -> None:
        """A delivery was interrupted: KVM enters the guest with the same event again."""
        self.enter()
        assert self._injected is not None
        if self._injected.software:
            self.fetcher.memory = self.memory
            self.fetcher.decode(self.cpu.state())  # to be skipped, as this CPU does not save the next RIP
        self._tell_injection(1)

    def _tell_injection(self, again: int) -> None:
        event = self._injected
        assert event is not None
        if event.is_exception:
            has = event.pushes_error_code
            code = event.error_code if has else 0
            self._tell(e.InjException(exception=Word(event.vector), has_error=Word(has), error_code=Word(code), reinjected=Word(again)))
