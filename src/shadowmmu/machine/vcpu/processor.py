# SPDX-License-Identifier: GPL-2.0-only
"""One vCPU of the machine: its state, and what the handlers of exits do with it. What makes it run is in `loop`."""

from collections import Counter
from typing import TYPE_CHECKING

from iced_x86 import Instruction

from shadowmmu.engine.face.types import Outcome
from shadowmmu.machine.devices.clock import TICKS_PER_EXIT, Clock
from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.emulator.decode import Fetcher, Operands, bitness
from shadowmmu.machine.emulator.emulate import Emulator
from shadowmmu.machine.emulator.plain import plain_of
from shadowmmu.machine.memory.linear_memory import Event, GuestFault, GuestMemory
from shadowmmu.machine.memory.translations import Translations
from shadowmmu.machine.seam import MASK32, MASK64, Cpu, ExitKind, Intercepts, State
from shadowmmu.machine.vcpu.cpuid import CR4_OFFERED, Cpuid
from shadowmmu.machine.vcpu.msr import EFER_OFFERED, PAT_RESET, Msrs
from shadowmmu.machine.vcpu.pending import Origin, Pending
from shadowmmu.machine.vcpu.quick_state import Served
from shadowmmu.machine.vcpu.svm_state import SvmState
from shadowmmu.machine.vcpu.watched import Watched
from shadowmmu.machine.vcpu.witness import Witness
from shadowmmu.x86.control import Cr0, Rflags
from shadowmmu.x86.debug import DR6_SINGLE_STEP
from shadowmmu.x86.pferr import Pferr
from shadowmmu.x86.vectors import DB, NAMES, PF

if TYPE_CHECKING:
    from shadowmmu import Vcpu
    from shadowmmu.machine.vcpu.quick_exits import QuickExits

_AC, _TF, _RF = int(Rflags.AC), int(Rflags.TF), int(Rflags.RF)
_WP, _ACCESS, _SUPERVISOR_WRITE = int(Cr0.WP), int(Pferr.PRESENT | Pferr.WRITE | Pferr.USER), int(Pferr.PRESENT | Pferr.WRITE)
_SERVED: tuple[tuple[ExitKind, Outcome | None], ...] = (
    (ExitKind.PAGE_FAULT, Outcome.FIXED),
    (ExitKind.PAGE_FAULT, Outcome.SPURIOUS),
    (ExitKind.CR_READ, None),
    (ExitKind.CR_WRITE, None),
    (ExitKind.INVLPG, None),
    (ExitKind.PAGE_FAULT, Outcome.INJECT),
    (ExitKind.SOFTWARE_INTERRUPT, None),
    (ExitKind.PAGE_FAULT, Outcome.EMULATE),
    (ExitKind.SVM, None),
    (ExitKind.PAGE_FAULT, None),
    (ExitKind.PAGE_FAULT, Outcome.INJECT),
    (ExitKind.NESTED_PAGE_FAULT, Outcome.FIXED),
    (ExitKind.NESTED_PAGE_FAULT, Outcome.SPURIOUS),
    (ExitKind.NESTED_PAGE_FAULT, Outcome.INJECT),
    (ExitKind.SYSCALL, None),
    (ExitKind.NESTED_PAGE_FAULT, Outcome.EMULATE),
    (ExitKind.RDTSC, None),
    (ExitKind.PAUSE, None),
    (ExitKind.CPUID, None),
    (ExitKind.MSR, None),
    (ExitKind.PAGE_FAULT, None),
)
"""What `quick_state.Served` counts."""


class Processor:
    """`cpu` runs the guest of the engine's `vcpu`.

    memory      the guest's, as an instruction reaches it that is done for the guest
    intercepts  what the machine itself wants to see
    fetcher     reads the instruction at an exit, which the CPU has fetched by itself; `emulator.fetcher` reads one anew,
                as KVM does to emulate it, or to skip it on a CPU that does not save the next RIP

    clock       the machine's
    apic        what comes from outside reaches it through this one; None: nothing does
    quick       serves exits in the CPU's hook; None: nobody does

    `svm` is what AMD-V keeps. `pending` is delivered when the exit has been handled.
    """

    def __init__(
        self,
        vcpu: "Vcpu",
        cpu: Cpu,
        cpuid: Cpuid,
        intercepts: Intercepts,
        memory: GuestMemory,
        fetcher: Fetcher | None = None,
        witness: Witness | None = None,
        clock: Clock | None = None,
        apic: LocalApic | None = None,
        quick: "QuickExits | None" = None,
    ) -> None:
        self.vcpu = vcpu
        self.cpu = cpu
        self.cpuid = cpuid
        self.intercepts = intercepts
        self.memory = memory
        self.emulator = Emulator(memory, Fetcher(memory, None if quick is None else self._learn), cpu)
        self.fetcher = fetcher or self.emulator.fetcher
        self.witness = witness or Witness()
        self.clock = clock or Clock()
        self.apic, self.quick = apic, quick
        self.svm = SvmState(vcpu, intercepts, CR4_OFFERED, EFER_OFFERED, 57 if memory.has_la57 else 48, PAT_RESET)
        self.msrs = Msrs(vcpu, memory, vcpu.id, cpuid, self.svm, apic)
        self.waits_for_window = False
        """An interrupt waits until the guest is ready for one."""
        self.unmasked_at: int | None = None
        """RIP of the IRET that ends that, until it is done."""
        self._own_priority = 0
        self.pending: Pending | None = None
        self.watched = Watched()
        if quick is not None:
            quick.know(self)
        self.translations = Translations() if quick is None else quick.translations
        """Of the CPU, as far as it delivers events."""
        self.halted = self.yielded = False
        self.halted_at = 0
        """RIP of the HLT."""
        self.waits_for_startup = apic is not None and vcpu.id != 0
        """An INIT has put it to sleep until a SIPI comes."""
        self.shutdown: str | None = None
        self.exits: Counter[ExitKind] = Counter()
        self.outcomes: Counter[Outcome] = Counter()
        self.reflected: Counter[int] = Counter()
        self.injected: Counter[str] = Counter()
        self.emulated = self.unprotected = 0

    @property
    def nested(self) -> SvmState | None:
        """Tells of L2, while it runs."""
        return self.svm if self.svm.runs else None

    @property
    def gif(self) -> bool:
        """L1's global interrupt flag."""
        return self.svm.gif

    @gif.setter
    def gif(self, value: bool) -> None:
        self.svm.gif = value

    @property
    def nmi_masked(self) -> bool:
        """NMIs wait for an IRET."""
        return self.svm.nmi_masked

    @nmi_masked.setter
    def nmi_masked(self, value: bool) -> None:
        self.svm.nmi_masked = value

    def _learn(self, operands: Operands, code: bytes) -> None:
        """So that the next time it can be done in the CPU's hook."""
        assert self.quick is not None
        places, mode, rip = self.quick.places, operands.mode, operands.instruction.ip
        if not places.knows(mode, rip, code):
            places.learn(mode, rip, code, plain_of(operands))

    @property
    def tsc(self) -> int:
        """The time-stamp counter, without the guest's offset: a run repeats exactly, so it is the machine's clock."""
        return self.clock.now

    @property
    def task_priority(self) -> int:
        """CR8: that of the local APIC, but of an L2 that has its own."""
        if self.apic is None or (self.nested is not None and self.nested.masks_interrupts):
            return self._own_priority
        return self.apic.tpr >> 4

    @task_priority.setter
    def task_priority(self, value: int) -> None:
        if self.apic is None or (self.nested is not None and self.nested.masks_interrupts):
            self._own_priority = value
        elif value != self.apic.tpr >> 4:
            self.apic.set_tpr(value << 4)

    def count(self, kind: ExitKind) -> None:
        """An exit, and so the clock goes on."""
        self.clock.advance(TICKS_PER_EXIT)
        self.exits[kind] += 1

    def count_quick(self, quick: "QuickExits") -> int:
        """Exits that were served in the CPU's hook, since it began; the clock counts these by itself. Returns how many."""
        served = quick.end()
        for (kind, outcome), number in zip(_SERVED, served, strict=True):
            if number:
                self.exits[kind] += number
                if outcome is not None:
                    self.outcomes[outcome] += number
        self.injected.update({Event(vector, software=True).name: number for vector, number in quick.interrupts().items()})
        faults = served[Served.INJECTED] + served[Served.OWN_INJECTED]
        if faults:
            self.injected[NAMES[PF]] += faults
        self.emulated += served[Served.EMULATED] + served[Served.NESTED_EMULATED]
        self.reflected.update(quick.reflected())
        if quick.l1_is_lost:
            self.lose_l1()
        return sum(served)

    def count_fault(self, kind: ExitKind, outcome: Outcome) -> None:
        """A fault in the midst of a delivery: there the CPU would have left the guest, and this one has not."""
        self.exits[kind] += 1
        self.outcomes[outcome] += 1

    # --- translations

    def flush_all(self) -> None:
        self.cpu.flush_all()
        self.translations.clear()

    def flush_page(self, gva: int) -> None:
        self.cpu.flush_page(gva)
        self.translations.clear()

    def takes_from_user(self, code: int) -> bool:
        """A supervisor's write that is let through to a page which it may not write, as CR0.WP is clear: the MMU has taken the page from
        users. A processor drops at each #PF what it has for the address (SDM vol. 3 section 4.10.4.1); this one keeps apart what it has
        for users."""
        return code & _ACCESS == _SUPERVISOR_WRITE and not self.vcpu.cr0 & _WP

    # --- registers

    def take_cr3(self) -> None:
        """With nested paging the guest loads CR3 without an exit."""
        if self.vcpu.vm.tdp:
            self.vcpu.cr3 = self.cpu.cr3

    def capture(self) -> State:
        """The registers, to be changed and handed on to `advance` or `cpu.set_state`."""
        state = self.cpu.state()
        self.look_from(state)
        return state

    def look_from(self, state: State) -> None:
        """Make the MMU's walks those of this state."""
        self.vcpu.ac = bool(state.rflags & _AC)

    def next_rip(self, state: State, instruction: Instruction | None = None) -> int:
        """RIP behind the instruction at RIP, which is decoded in order to be skipped if nobody has yet."""
        rip: int = (instruction or self.emulator.fetcher.decode(state)).next_ip
        return rip & (MASK64 if bitness(state, self.vcpu.efer) == 64 else MASK32)

    def advance(self, state: State, instruction: Instruction | None = None) -> None:
        """Take over `state` behind the instruction that exited."""
        state.rip = self.next_rip(state, instruction)
        self.complete(state)

    def complete(self, state: State) -> None:
        """An instruction was done for the guest: take over its state, and trap if it is single-stepping or has met a breakpoint on data."""
        state.interrupt_shadow = False
        state.rflags &= ~_RF
        self.watched.done()
        if state.rflags & _TF or self.watched.met:
            step = DR6_SINGLE_STEP if state.rflags & _TF else 0
            state.system = state.system._replace(dr6=self.watched.tell(state.system.dr6) | step)
            self.queue(Event(DB))
        self.cpu.set_state(state)

    def stop(self, reason: str, *, at_entry: bool) -> None:
        """It can go on no longer: found by the CPU, or by KVM on the way into the guest."""
        self.shutdown = reason
        self.witness.shuts_down(at_entry)

    def lose_l1(self) -> None:
        """An L1 that cannot go on behind its L2."""
        self.stop(f"the CR3 of L1, {self.svm.l1_cr3:#x}, has become illegal while L2 ran", at_entry=True)

    # --- events

    def queue(self, event: Event, origin: Origin = Origin.KVM) -> None:
        """Have an event delivered, unless L1 takes it."""
        self.pending = Pending(event, origin)

    def queue_fault(self, fault: GuestFault) -> None:
        """The guest's instruction raised an exception while it was done for it."""
        self.report(fault)
        self.queue(fault.event)

    def report(self, fault: GuestFault) -> None:
        """A #PF found by translation is the guest's: the engine drops what it has for that address."""
        if fault.event.vector == PF and not fault.reported:
            self.vcpu.inject()
