"""One vCPU of the machine: enter the guest, run it, handle the exit; deliver events; emulate."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from iced_x86 import Instruction

from shadowmmu.engine.face.types import TripleFault
from shadowmmu.machine.emulator.decode import Fetcher, StaleCode, UnemulatedInstruction, bitness
from shadowmmu.machine.emulator.emulate import Emulator
from shadowmmu.machine.exits.handlers import HANDLERS
from shadowmmu.machine.exits.page_boundary import run_exactly
from shadowmmu.machine.memory.cpu_memory import CpuMemory, NestedCpuMemory
from shadowmmu.machine.memory.linear_memory import DB, PF, SYSTEM, UD, WRITE, Event, GuestFault, GuestMemory, NestedFault, NoMemory
from shadowmmu.machine.seam import MASK32, MASK64, Cpu, Exit, ExitKind, Intercepts, State
from shadowmmu.machine.svm.reflect import for_l1, wants_port
from shadowmmu.machine.svm.world_switch import Nested, vmexit
from shadowmmu.machine.vcpu.control_registers import real_controls
from shadowmmu.machine.vcpu.cpuid import Cpuid
from shadowmmu.machine.vcpu.deliver import TaskSwitch, TripleFaultDelivery, deliver, second_event
from shadowmmu.machine.vcpu.msr import Msrs
from shadowmmu.x86.control import Cr0, Rflags
from shadowmmu.x86.vmcb import SvmExit

if TYPE_CHECKING:
    from shadowmmu import Outcome, Vcpu

_AC, _TF = int(Rflags.AC), int(Rflags.TF)
TSC_PER_EXIT = 1000  # time-stamp counts; the clock of this machine is its exits
_DR6_SINGLE_STEP = 1 << 14
_TSS_IO_MAP = 0x66
_UNPROTECT_LIMIT = 3  # times the same instruction may be let off emulation in a row


class _LeftL2(Exception):
    """The engine could make no root for L2, and L1 took over."""


class Processor:
    """`cpu` runs the guest of the engine's `vcpu`; `on_store(gpa, size)` and `on_host_store(hpa, size)` hear of
    stores that the CPU does not do itself; `intercepts` are the machine's own.

    While L2 runs, `nested` tells of it. `gif` is L1's global interrupt flag; nothing interrupts this machine, so it is
    kept and not asked.
    """

    def __init__(
        self,
        vcpu: "Vcpu",
        cpuid: Cpuid,
        intercepts: Intercepts,
        on_store: Callable[[int, int], None],
        on_host_store: Callable[[int, int], None],
    ) -> None:
        self.vcpu = vcpu
        self.memory = GuestMemory(vcpu, on_store)
        cpu_memory = NestedCpuMemory if vcpu.vm.tdp else CpuMemory
        self.cpu_memory = cpu_memory(vcpu, on_store, on_host_store, self._fault_in_delivery, self._reenter)
        self.fetcher = Fetcher(self.memory)
        self.msrs = Msrs(vcpu, self.memory, vcpu.id, svm=cpuid.offers_svm)
        self.cpuid = cpuid
        self.intercepts = intercepts
        self.nested: Nested | None = None
        self.gif = True
        self.cpu: Cpu
        self.emulator: Emulator
        self.task_priority = 0
        self.halted = self.yielded = False
        self.shutdown: str | None = None
        self.exits: Counter[ExitKind] = Counter()
        self.outcomes: Counter[Outcome] = Counter()
        self.reflected: Counter[int] = Counter()
        self.injected: Counter[str] = Counter()
        self.emulated = self.unprotected = 0
        self._count = 0
        self._let_off = (0, 0, 0)  # RIP, address, times in a row

    def attach(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.emulator = Emulator(self.memory, self.fetcher, cpu)

    @property
    def tsc(self) -> int:
        """The time-stamp counter: a run repeats exactly, so it counts exits, not time."""
        return self._count * TSC_PER_EXIT

    def enter(self) -> None:
        """Let the engine serve its requests, and make the CPU ready to run on what it gives."""
        try:
            entry = self.vcpu.enter()
        except TripleFault as end:
            if self.nested is None or not self.nested.wants(SvmExit.SHUTDOWN):
                raise
            self.shut_down(str(end))
            entry = self.vcpu.enter()
        self.cpu.set_controls(real_controls(self.vcpu, entry))
        if entry.flush_all:
            self.cpu.flush_all()
        for gva in entry.flush_gvas:
            self.cpu.flush_page(gva)

    def _reenter(self) -> None:
        """The same in the middle of a delivery, which ends if L2 does."""
        running = self.nested
        self.enter()
        if self.nested is not running:
            raise _LeftL2

    def step(self) -> Exit:
        """Enter the guest and handle the exit."""
        self.enter()
        exit_ = run_exactly(self.cpu, self.fetcher)
        self._take_cr3()
        if exit_.kind is ExitKind.INTERRUPTED:
            return exit_
        self._count += 1
        self.exits[exit_.kind] += 1
        try:
            if not self._reflect(exit_):
                HANDLERS[exit_.kind](self, exit_)
        except GuestFault as fault:
            self.raise_fault(fault)
        except NestedFault as nested_fault:
            self._leave_by(nested_fault, None)
        except StaleCode:
            self.cpu.all_code_changed()
        except TaskSwitch as end:
            if self.nested is None:
                raise
            self.shut_down(str(end))
        return exit_

    def _take_cr3(self) -> None:
        """With nested paging the guest loads CR3 without an exit."""
        if self.vcpu.vm.tdp:
            self.vcpu.cr3 = self.cpu.cr3

    # --- L2

    def _reflect(self, exit_: Exit) -> bool:
        """Give an exit of L2 to L1, if L1 wants it."""
        if self.nested is None:
            return False
        reflected = for_l1(self, self.nested, exit_)
        if reflected is None:
            return False
        self.leave_l2(*reflected)
        return True

    def leave_l2(self, code: int, info_1: int = 0, info_2: int = 0, interrupted: Event | None = None, at_entry: bool = False) -> None:
        """#VMEXIT to L1; `interrupted` is the event that was being delivered, `at_entry`: KVM does it on the way into L2."""
        self.reflected[code] += 1
        vmexit(self, code, info_1, info_2, interrupted, at_entry)

    def _leave_by(self, fault: NestedFault, interrupted: Event | None) -> None:
        """L1's nested tables do not allow what L2 does."""
        if not fault.reported:
            self.vcpu.inject()
        self.leave_l2(SvmExit.NESTED_PAGE_FAULT, fault.code, fault.gpa, interrupted)

    def _taken_by_l1(self, event: Event, interrupted: Event | None) -> bool:
        """L1 intercepts an exception of L2."""
        code = SvmExit.EXCEPTION + event.vector
        if self.nested is None or not event.is_exception or not self.nested.wants(code):
            return False
        self.leave_l2(code, event.error_code if event.pushes_error_code else 0, event.cr2 or 0, interrupted, self._injects())
        return True

    def _injects(self) -> bool:
        """The exception at hand is one that KVM injects on its way into the guest."""
        return True

    def shut_down(self, reason: str) -> None:
        """The CPU can go on no longer; of L2 that is L1's affair, if it wants to know."""
        if self.nested is not None and self.nested.wants(SvmExit.SHUTDOWN):
            self.leave_l2(SvmExit.SHUTDOWN, at_entry=True)
        else:
            self.shutdown = reason

    # --- helpers of the handlers

    def capture(self) -> State:
        """The registers, to be changed and handed on to `advance` or `cpu.set_state`."""
        state = self.cpu.state()
        self._look_from(state)
        return state

    def _look_from(self, state: State) -> None:
        """Make the MMU's walks those of this state."""
        self.vcpu.ac = bool(state.rflags & _AC)

    def write_register(self, write: Callable[["Processor", int, bool], bool], value: int, in_64_bit_code: bool) -> bool:
        """Write a control register for the guest; False: #GP."""
        return write(self, value, in_64_bit_code)

    def next_rip(self, state: State, instruction: Instruction | None = None) -> int:
        """RIP behind the instruction at RIP."""
        rip: int = (instruction or self.fetcher.decode(state)).next_ip
        return rip & (MASK64 if bitness(state, self.vcpu.efer) == 64 else MASK32)

    def advance(self, state: State, instruction: Instruction | None = None) -> None:
        """Take over `state` behind the instruction that exited."""
        state.rip = self.next_rip(state, instruction)
        self.complete(state)

    def complete(self, state: State) -> None:
        """An instruction was done for the guest: take over its state, and trap if it is single-stepping."""
        state.interrupt_shadow = False
        if state.rflags & _TF:
            state.system = state.system._replace(dr6=state.system.dr6 | _DR6_SINGLE_STEP)
            self.cpu.set_state(state)
            self.inject(Event(DB))
        else:
            self.cpu.set_state(state)

    # --- events

    def raise_fault(self, fault: GuestFault) -> None:
        """The guest's instruction raised an exception while it was done for it."""
        self._report(fault)
        self.inject(fault.event)

    def _report(self, fault: GuestFault) -> None:
        """A #PF found by translation is the guest's: the engine drops what it has for that address."""
        if fault.event.vector == PF and not fault.reported:
            self.vcpu.inject()

    def _fault_in_delivery(self, outcome: "Outcome") -> None:
        """The CPU would have left the guest in the middle of the delivery."""
        self.exits[ExitKind.NESTED_PAGE_FAULT if self.vcpu.vm.tdp else ExitKind.PAGE_FAULT] += 1
        self.outcomes[outcome] += 1

    def inject(self, event: Event) -> None:
        """An event of the guest's own: deliver it, unless L1 wants it."""
        if not self._taken_by_l1(event, None):
            self.deliver(event)

    def deliver_from_vmcb(self, event: Event) -> None:
        """What L1 has VMRUN deliver (EVENTINJ)."""
        self.deliver(event)

    def deliver(self, event: Event) -> None:
        """Deliver an event; what faults on the way is merged with it as the CPU does, or ends it by an exit to L1.

        On hardware delivery is part of the guest entry, so the engine's requests are served first.
        """
        try:
            if self.vcpu.requests or self.vcpu.root is None:
                self._reenter()
            state = self.cpu.state()
            self._look_from(state)
            while True:
                if event.cr2 is not None:
                    self.vcpu.cr2 = event.cr2
                self.injected[event.name] += 1
                self.cpu_memory.begin()
                try:
                    self.cpu.set_state(deliver(state, self.vcpu.cr0, self.vcpu.efer, self.cpu_memory, event))
                    return
                except NestedFault as nested_fault:
                    self._leave_by(nested_fault, event)
                    return
                except GuestFault as fault:
                    self._report(fault)
                    if self._taken_by_l1(fault.event, event):
                        return
                    if fault.event.cr2 is not None:
                        self.vcpu.cr2 = fault.event.cr2
                    merged = second_event(event, fault.event)
                    if merged is not fault.event and self._taken_by_l1(merged, event):
                        return
                    event = merged
                    self._goes_on_with(event, fault.event)
        except TripleFaultDelivery as end:
            self.shut_down(str(end))
        except _LeftL2:
            pass  # L1 has had a shutdown exit, and the event is gone with L2's state

    def _goes_on_with(self, event: Event, fault: Event) -> None:
        """A delivery ended in `fault`; `event` is delivered next: that, or a double fault."""

    # --- emulation

    def emulate(self, address: int) -> None:
        """The engine cannot let the CPU do the access to `address`: do the instruction.

        The address is linear, or with nested paging physical for the guest that runs.
        """
        state = self.capture()
        self.emulated += 1
        try:
            after = self.emulator.step(state)
        except (NoMemory, UnemulatedInstruction) as end:
            if isinstance(end, UnemulatedInstruction) and self._let_cpu_do_it(state.rip, address):
                return
            if self.nested is not None:
                raise GuestFault(UD) from None  # L2 cannot stop the machine: KVM's handle_emulation_failure
            if isinstance(end, NoMemory):
                end = UnemulatedInstruction(state.rip, b"", f"(code at guest physical {end}, where there is no memory)")
            raise end from None
        self.complete(after)

    def _let_cpu_do_it(self, rip: int, address: int) -> bool:
        """KVM's way out: stop shadowing the table that is written, so that the CPU can do the store itself."""
        last_rip, last_address, times = self._let_off
        times = times + 1 if (last_rip, last_address) == (rip, address) else 1
        self._let_off = (rip, address, times)
        if times > _UNPROTECT_LIMIT:
            return False
        vcpu = self.vcpu
        gpa = vcpu.translate_gpa(address, WRITE) if vcpu.vm.tdp else vcpu.gva_to_gpa(address, WRITE)
        if gpa is None or vcpu.read_emulated(gpa, 1) is None:
            return False
        self.unprotected += 1
        vcpu.vm.unprotect_page(gpa >> 12)
        return True

    # --- ports

    def guard_port(self, state: State, port: int, size: int) -> ExitKind | None:
        """Asked by the CPU about IN and OUT; exceptions come before L1's intercept."""
        self._take_cr3()
        self._look_from(state)
        if not self._may_use_port(state, port, size):
            return ExitKind.PORT_DENIED
        return ExitKind.PORT if self.nested is not None and wants_port(self, self.nested, port, size) else None

    def _may_use_port(self, state: State, port: int, size: int) -> bool:
        """IN and OUT outside ring 0: by IOPL or by the TSS's permission map. SDM vol. 1 section 19.5."""
        if not self.vcpu.cr0 & Cr0.PE:
            return True
        if state.cpl <= state.rflags >> 12 & 3 and not state.rflags & Rflags.VM:
            return True
        tr = state.system.tr
        try:
            if tr.limit < _TSS_IO_MAP + 1 or not tr.attr & 8:
                return False
            start = self.memory.read(tr.base + _TSS_IO_MAP, 2, SYSTEM) + port // 8
            if start + 1 > tr.limit:
                return False
            denied = self.memory.read(tr.base + start, 2, SYSTEM) >> port % 8
        except (GuestFault, NestedFault):
            return False
        return not denied & (1 << size) - 1
