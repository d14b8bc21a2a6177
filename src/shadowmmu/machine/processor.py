"""One vCPU of the machine: enter the guest, run it, handle the exit; deliver events; emulate."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from iced_x86 import Instruction

from shadowmmu.machine.control_registers import real_controls
from shadowmmu.machine.cpu import MASK32, MASK64, Cpu, Exit, ExitKind, State
from shadowmmu.machine.cpu_memory import CpuMemory
from shadowmmu.machine.cpuid import Cpuid
from shadowmmu.machine.decode import Fetcher, UnemulatedInstruction, bitness
from shadowmmu.machine.deliver import TripleFaultDelivery, deliver, second_event
from shadowmmu.machine.emulate import Emulator
from shadowmmu.machine.exits import HANDLERS
from shadowmmu.machine.memory import DB, PF, SYSTEM, WRITE, Event, GuestFault, GuestMemory, NoMemory
from shadowmmu.machine.msr import Msrs
from shadowmmu.x86.control import Cr0, Rflags

if TYPE_CHECKING:
    from shadowmmu import Outcome, Vcpu

_AC, _TF = int(Rflags.AC), int(Rflags.TF)
TSC_PER_EXIT = 1000  # time-stamp counts; the clock of this machine is its exits
_DR6_SINGLE_STEP = 1 << 14
_TSS_IO_MAP = 0x66
_UNPROTECT_LIMIT = 3  # times the same instruction may be let off emulation in a row


class Processor:
    """`cpu` runs the guest of the engine's `vcpu`; `on_store(gpa, size)` and `on_host_store(hpa, size)` hear of
    stores that the CPU does not do itself."""

    def __init__(self, vcpu: "Vcpu", cpuid: Cpuid, on_store: Callable[[int, int], None], on_host_store: Callable[[int, int], None]) -> None:
        self.vcpu = vcpu
        self.memory = GuestMemory(vcpu, on_store)
        self.cpu_memory = CpuMemory(vcpu, on_store, on_host_store, self._fault_in_delivery, self.enter)
        self.fetcher = Fetcher(self.memory)
        self.msrs = Msrs(vcpu, self.memory, vcpu.id)
        self.cpuid = cpuid
        self.cpu: Cpu
        self.emulator: Emulator
        self.task_priority = 0
        self.halted = self.yielded = False
        self.shutdown: str | None = None
        self.exits: Counter[ExitKind] = Counter()
        self.outcomes: Counter[Outcome] = Counter()
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
        entry = self.vcpu.enter()
        self.cpu.set_controls(real_controls(self.vcpu, entry))
        if entry.flush_all:
            self.cpu.flush_all()
        for gva in entry.flush_gvas:
            self.cpu.flush_page(gva)

    def step(self) -> Exit:
        """Enter the guest and handle the exit."""
        self.enter()
        exit_ = self.cpu.run()
        if exit_.kind is ExitKind.INTERRUPTED:
            return exit_
        self._count += 1
        self.exits[exit_.kind] += 1
        try:
            HANDLERS[exit_.kind](self, exit_)
        except GuestFault as fault:
            self.raise_fault(fault)
        return exit_

    # --- helpers of the handlers

    def capture(self) -> State:
        """The registers, to be changed and handed on to `advance` or `cpu.set_state`."""
        state = self.cpu.state()
        self.vcpu.ac = bool(state.rflags & _AC)
        return state

    def advance(self, state: State, instruction: Instruction | None = None) -> None:
        """Take over `state` behind the instruction that exited."""
        rip = (instruction or self.fetcher.decode(state)).next_ip
        state.rip = rip & (MASK64 if bitness(state, self.vcpu.efer) == 64 else MASK32)
        self.complete(state)

    def complete(self, state: State) -> None:
        """An instruction was done for the guest: take over its state, and trap if it is single-stepping."""
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
        self.exits[ExitKind.PAGE_FAULT] += 1
        self.outcomes[outcome] += 1

    def inject(self, event: Event) -> None:
        """Deliver an event; what faults on the way is merged with it as the CPU does."""
        state = self.cpu.state()
        try:
            while True:
                if event.cr2 is not None:
                    self.vcpu.cr2 = event.cr2
                self.injected[event.name] += 1
                self.cpu_memory.begin()
                try:
                    self.cpu.set_state(deliver(state, self.vcpu.cr0, self.vcpu.efer, self.cpu_memory, event))
                    return
                except GuestFault as fault:
                    self._report(fault)
                    if fault.event.cr2 is not None:
                        self.vcpu.cr2 = fault.event.cr2
                    event = second_event(event, fault.event)
        except TripleFaultDelivery as end:
            self.shutdown = str(end)

    # --- emulation

    def emulate(self, gva: int) -> None:
        """The engine cannot let the CPU do the access to `gva`: do the instruction."""
        state = self.capture()
        self.emulated += 1
        try:
            after = self.emulator.step(state)
        except NoMemory as where:
            raise UnemulatedInstruction(state.rip, b"", f"(code at guest physical {where}, where there is no memory)") from None
        except UnemulatedInstruction:
            if not self._let_cpu_do_it(state.rip, gva):
                raise
            return
        self.complete(after)

    def _let_cpu_do_it(self, rip: int, gva: int) -> bool:
        """KVM's way out: stop shadowing the table that is written, so that the CPU can do the store itself."""
        last_rip, last_gva, times = self._let_off
        times = times + 1 if (last_rip, last_gva) == (rip, gva) else 1
        self._let_off = (rip, gva, times)
        if times > _UNPROTECT_LIMIT:
            return False
        gpa = self.vcpu.gva_to_gpa(gva, WRITE)
        if gpa is None or self.vcpu.read_emulated(gpa, 1) is None:
            return False
        self.unprotected += 1
        self.vcpu.vm.unprotect_page(gpa >> 12)
        return True

    def may_use_port(self, state: State, port: int, size: int) -> bool:
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
        except GuestFault:
            return False
        return not denied & (1 << size) - 1
