# SPDX-License-Identifier: GPL-2.0-only
"""Drives a VM through a capture: gives the engine what the CPU, the guest and the VMM did, and compares what it does.

Inputs are: faults (address and error code), the emulator's use of the MMU (walks, writes, INVLPG), writes of control
registers, VMRUN and #VMEXIT, the VMM's actions, and the guest's plain stores. All else is output, and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shadowmmu import EngineError, Outcome, TripleFault
from shadowmmu.captures.capture import Capture, Op
from shadowmmu.captures.instructions import control_register_written, immediate_loaded
from shadowmmu.captures.lookahead import efer_written, gets_gp, goes_to_l1, pgd_loaded, rest_of_exit, synced_before_reschedule
from shadowmmu.captures.markers import CREATES_VCPU, Mark, parse
from shadowmmu.captures.validate import AGED, is_end
from shadowmmu.check.compare.origin import with_origins
from shadowmmu.check.compare.result import Diverged, Divergence, ReplayResult, page_at
from shadowmmu.check.replay.judge import Judge
from shadowmmu.check.replay.observe import Observer
from shadowmmu.check.replay.state import ReplayState
from shadowmmu.check.replayed.inputs import (
    INIT_CR0,
    ControlRegister,
    Enter,
    Fault,
    Inject,
    Invlpg,
    Translate,
    Unprotect,
    UnprotectAddress,
    WriteEmulated,
)
from shadowmmu.check.replayed.vmrun import compare_exit, leave, vmcb_state
from shadowmmu.check.special_roots.special_vm import Parted
from shadowmmu.hardware.host_memory import Violation
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.x86.control import Cr0, Efer
from shadowmmu.x86.vectors import GP, PF
from shadowmmu.x86.vmcb import SvmExit

LMA = int(Efer.LMA)
IN_64_BIT_CODE = 1 << 3
"""kvm_emulate_insn's flag: the code segment is a 64-bit one."""
SHUTDOWN = 8
"""KVM_EXIT_SHUTDOWN: the guest is over, and its last root is gone."""


class Replay(ReplayState):
    """Its events, one after the other."""

    def __init__(self, capture: Capture, roots: str | None = None, captured_on: str | None = None, *, judged: bool = False) -> None:
        """`judged`: oracle and audit look at each VM of the replay, too."""
        super().__init__(capture, roots, captured_on)
        self.judges = [Judge(side, capture) for side in self.sides()] if judged else []
        self.exit_reason = 0
        self.outcome: Outcome | None = None
        """How the fault under way ended for the engine; None: no fault is under way."""
        self.returned: AnyEvent | None = None
        """The engine's return code of that fault; the emulator's decides where it goes on there."""
        self.faulted = False
        """The engine has given the guest a #PF in the present exit."""
        self.failed_walk = False
        self.refused = False
        """A register write was illegal: #GP is to follow."""
        self.switched: bool | None = None
        """Whether VMRUN or #VMEXIT of the present exit found a legal state; None: there was none."""
        self.operand = -1, 0
        """What the VMM has told last of a MOV to a control register: its rip, and the value."""
        self.created = 0
        """vCPUs that the VMM has made."""
        self.observer = Observer(self)

    # --- the loop

    def run(self, until: int | None = None) -> ReplayResult:
        """Replay to the end, to the first divergence, or until just before event `until`."""
        end = len(self.events) if until is None else min(until, len(self.events))
        try:
            while self.at < end and self.step():
                self.at += 1
            if self.at == until:
                return self.result
            self.streams.compare(self.at)
            self.observer.finish()
            if self.at == end:
                raise self.diverge("the capture is cut off: the kernel's guest has not ended, and its VM is not closed")
        except Diverged as stop:
            self.result.divergence = with_origins(stop.divergence, self.capture)
        except Parted as stop:
            self.result.divergence = with_origins(self._parted(stop), self.capture)
        except Violation as broken:
            self.result.divergence = with_origins(self.diverge(f"not as a CPU would do it: {broken}").divergence, self.capture)
        except EngineError as error:
            self.result.divergence = with_origins(self.diverge(f"the engine cannot go on: {error}").divergence, self.capture)
        self.result.events = self.streams.compared
        self.result.bugs = self.seen.bugs()
        if self.special_vm is not None:
            self.result.events, self.result.until = self.special_vm.compared, self.special_vm.until
            self.result.parted = "" if self.special_vm.apart is None else self.special_vm.apart.what
            self.result.differences = dict(sorted(self.special_vm.differences.items()))
        return self.result

    def _parted(self, stop: Parted) -> Divergence:
        at = next((int(getattr(row.engine, "sptep", 0)) for row in stop.rows if row.differs), 0) or stop.table
        return Divergence(stop.what, self.at, self.operation(), stop.rows, page_at(self.seen, at) if at else None)

    def step(self) -> bool:
        """One event of the capture; False: the end."""
        event = self.events[self.at]
        handler: Callable[[Any], bool | None] | None = _HANDLERS.get(type(event))
        if handler is None:
            self.streams.expect(self.at, event)
            return True
        return handler(self, event) is not False  # type: ignore[call-arg]

    # --- exits and entries

    def on_exit(self, event: e.Exit) -> None:
        self.rip, self.exit_reason = event.guest_rip, event.exit_reason
        self.outcome = None
        self.faulted = self.failed_walk = self.refused = False
        self.switched = None
        if self.special_vm is not None:
            self.special_vm.new_exit()
        op = self.programme().seen_at(self.rip)
        if op is not None:
            self.done_without_exit(op)
        if event.exit_reason == int(SvmExit.SHUTDOWN) and not goes_to_l1(self.events, self.at):
            self.give(lambda side: side.vcpu.set_sregs(INIT_CR0, 0, 0, 0))
        efer = efer_written(self.events, self.at)
        if efer is not None:
            self.refused = not self.give(lambda side: side.vcpu.set_efer(efer & ~LMA | side.vcpu.efer & LMA))

    def on_other(self, event: e.Other) -> None:
        if event.ev == AGED:
            start, end = int(event.fields["start"]), int(event.fields["end"])
            self.give(lambda side: side.host.age(start, end))
        self.streams.expect(self.at, event)

    def on_entry(self, event: e.VmEntry) -> None:
        try:
            self.give(Enter())
        except TripleFault as error:
            raise self.diverge(f"the kernel enters the guest, the engine shuts it down: {error}") from error
        self.streams.compare(self.at)
        self.result.entries += 1

    def _fail_to_enter(self) -> None:
        """The kernel found no root to enter the guest with: a shutdown, which L1 gets if the guest is its L2."""
        try:
            self.give(Enter())
        except TripleFault:
            return
        raise self.diverge("the kernel finds no root for the guest, the engine has one")

    def on_fault(self, event: e.MmuPageFault) -> None:
        self.streams.compare(self.at)
        self.outcome = self.give(Fault(event.addr, event.err, synced_before_reschedule(self.events, self.at)))
        self.faulted = self.outcome == Outcome.INJECT and self.vcpu.exception is not None and not self.vcpu.exception.nested
        self.returned = self.streams.take_return()
        self.streams.expect(self.at, event)

    def on_fault_return(self, event: e.MmuPageFaultRet) -> None:
        self.streams.compare(self.at)
        if self.outcome != Outcome.EMULATE and self.returned is not None:
            self.streams.engine.append(self.returned)
            self.streams.expect(self.at, event)
        self.outcome = None

    # --- the emulator

    def _asked_from_outside(self) -> bool:
        """Whether the event at hand is the emulator's doing: the engine has not done it, and is not handling a fault."""
        return not self.streams.engine_has_next() and self.outcome in (None, Outcome.EMULATE)

    def on_walk(self, event: e.Walk) -> None:
        if self._asked_from_outside():
            self.streams.compare(self.at)
            if self.capture.setup.npt:
                self.failed_walk = not self._translates_nested(event.addr, event.pferr)
            else:
                self.failed_walk = self.give(Translate(event.addr, event.pferr)) is None
        self.streams.expect(self.at, event)

    def _translates_nested(self, gva: int, access: int) -> bool:
        """The emulator walks tables that the CPU has walked, and marked, before."""
        rest = list(rest_of_exit(self.events, self.at))
        refused = self.cpu.refused_pdpte(gva, rest)
        self.cpu.take_bits(gva, rest, () if refused is None else self.vcpu.pdptrs)
        if refused is not None:
            self.cpu.mark(refused, True)
        translates = self.give(Translate(gva, access)) is not None
        if refused is not None:
            self.cpu.mark(refused, False)
        return translates

    def on_emulate(self, event: e.EmulateInsn) -> None:
        if self.outcome not in (None, Outcome.EMULATE):
            raise self.diverge(f"the kernel emulates the instruction, the engine says {self.outcome.name}")
        self.streams.compare(self.at)
        self.observer.emulated = self.outcome is Outcome.EMULATE
        cr = control_register_written(event.insn[: event.len])
        if cr is None or cr not in (0, 3, 4):
            return
        if self.capture.setup.npt and gets_gp(self.events, self.at):
            # PDPTEs may be illegal by bits that the CPU sets there under nested paging (QEMU's TCG sets bit 5): an input.
            self.refused = True
            return
        value = self._register_operand(event, cr)
        if value is None:
            raise self.diverge(f"MOV to CR{cr} at {event.rip:x}: no operation of the guest tells the value")
        self.refused = (cr == 0 and self._is_paging_switch_in_64_bit_code(event, value)) or not self.give(ControlRegister(cr, value))

    def _is_paging_switch_in_64_bit_code(self, event: e.EmulateInsn, value: int) -> bool:
        """CR0.PG cannot change there; the engine does not know CS, the emulator's event does."""
        return bool(event.flags & IN_64_BIT_CODE and self.vcpu.efer & Efer.LME and (value ^ self.vcpu.cr0) & Cr0.PG)

    def _register_operand(self, event: e.EmulateInsn, cr: int) -> int | None:
        """What MOV CRn takes from a register: told by the guest's author, the VMM, the code just before, or new_pgd behind it."""
        value = self.programme().operand(event.rip)
        if value is None and self.operand[0] == event.rip:
            value = self.operand[1]
        if value is not None:
            return value
        code = self.cpu.load(event.csbase + event.rip - 10, 10, False)
        value = immediate_loaded(code, event.insn) if code else None
        return pgd_loaded(self.events, self.at) if value is None and cr == 3 else value

    def on_pte_write(self, event: e.PteWrite) -> None:
        if self._asked_from_outside():
            self.streams.compare(self.at)
            size = min(event.bytes, 8)
            self.give(WriteEmulated(event.gpa, (event.val & (1 << 8 * size) - 1).to_bytes(size, "little")))
            self.programme().emulated(self.rip)
        self.streams.expect(self.at, event)

    def on_mmio(self, event: e.Mmio) -> None:
        self.programme().emulated(self.rip)
        self.observer.expects_value = False

    def on_unprotect(self, event: e.UnprotectPage) -> None:
        self.failed_walk = False  # it was only to find this page, at a fault while an event was delivered
        if self._asked_from_outside():
            self.streams.compare(self.at)
            self.give(Unprotect(event.gfn))
        self.streams.expect(self.at, event)

    def on_unprotect_gfn(self, event: e.UnprotectGfn) -> None:
        self.failed_walk = False
        if self._asked_from_outside():
            self.streams.compare(self.at)
            self.give(UnprotectAddress(event.addr))

    def on_invlpg(self, event: e.Invlpg) -> None:
        if self._asked_from_outside():
            self.streams.compare(self.at)
            self.give(Invlpg(event.gva))
        self.streams.expect(self.at, event)

    def on_invalidate(self, event: e.InvalidateGva) -> None:
        if self._asked_from_outside() and self.failed_walk:
            self.streams.compare(self.at)
            self.failed_walk = False
            self.faulted = True
            self.give(Inject())
        self.streams.expect(self.at, event)

    def on_inject(self, event: e.InjException) -> None:
        self.programme().faulted(self.rip)
        if event.reinjected:
            return
        if event.exception == PF:
            if self.failed_walk:  # requests may have been served since, which the engine does at entry: nothing to compare yet
                self.failed_walk = False
                self.give(Inject())
            ours = self.vcpu.exception
            if ours is None or ours.error_code != event.error_code:
                said = "none" if ours is None else f"one with error code {ours.error_code:x}"
                raise self.diverge(f"the kernel gives the guest a #PF with error code {event.error_code:x}, the engine {said}")
            self.result.injected += 1
        elif event.exception == GP and self.refused:
            self.result.injected += 1

    # --- nesting

    def on_vmrun(self, event: e.NestedVmenter) -> None:
        self.streams.compare(self.at)
        self.vmcb = event.vmcb
        self.switched = self.give(lambda side: side.vcpu.nested_vmrun(*vmcb_state(side.vm, event.vmcb)))

    def on_vmexit(self, event: e.NestedVmexitInject) -> None:
        """Back to L1: by an exit of L2, or while L2 was to be entered with an exception that L1 takes, or without a root."""
        takes_fault = event.exit_code == int(SvmExit.PAGE_FAULT) and (self.faulted or self.failed_walk)
        if takes_fault and self.failed_walk:
            self.give(Inject())
        # A fault while a double fault was delivered: KVM_REQ_TRIPLE_FAULT, which is served as L2 is entered.
        at_entry = takes_fault or event.exit_code == int(SvmExit.SHUTDOWN) != self.exit_reason
        if takes_fault or (self.outcome == Outcome.INJECT and not at_entry):
            told = compare_exit(event, self.vcpu.exception)
            if told:
                raise self.diverge(told)
            self.result.injected += 1
        if self.streams.kernel_has(e.MmuLoad):
            self._fail_to_enter()
            at_entry = True
        if not at_entry:
            self.streams.compare(self.at)
        self.l2.faulted(self.rip)
        self.switched = self.give(lambda side: leave(side.vm, side.vcpu, self.vmcb, at_entry))

    def on_switch_failed(self, event: e.NestedVmenterFailed) -> bool | None:
        """The state that VMRUN or #VMEXIT was to load is illegal. At #VMEXIT that is the end: L1 shuts down."""
        if self.switched is True:
            raise self.diverge("the kernel finds the state to load illegal, the engine has loaded it")
        ends = self.switched is False and not self.vcpu.guest_mode
        if ends:
            self.streams.clear()
        return not ends

    # --- markers

    def on_marker(self, event: e.Marker) -> bool | None:
        mark = parse(event)
        if mark.who == "G":
            self.streams.compare(self.at)
            self.observer.guest_says(mark)
            for judge in self.judges:
                judge.look()
        elif mark.who == "H":
            if is_end(event):
                return False
            if event.text == CREATES_VCPU or mark.action == "on":
                self._turn_to(mark)
            if mark.fields.get("exit_reason") == SHUTDOWN:
                if self.streams.kernel_has(e.MmuLoad):
                    self._fail_to_enter()
                self.observer.last_dump = None
            self._host_does(mark)
        return None

    def _turn_to(self, mark: Mark) -> None:
        """A vCPU has been made, and is to be set up, or it is to run next."""
        if self.result.entries:
            self.streams.compare(self.at)
        self.created += mark.action != "on"
        self.select(mark["vcpu"] if mark.action == "on" else self.created - 1)

    def _stored(self, mark: Mark) -> None:
        """A plain store that the VMM has found, of a guest without a list of them."""
        self.streams.compare(self.at)
        self.store(Op(0, "wr", cpl=mark["cpl"], va=mark["va"], val=mark["val"], size=mark["len"]))

    def _host_does(self, mark: Mark) -> None:
        if mark.action == "stored":
            self._stored(mark)
        elif mark.action == "operand":
            self.operand = mark["rip"], mark["val"]
        elif mark.action == "set_sregs":
            if not self.result.entries:
                self.give(lambda side: side.host.load_image())
                self.host.seed_frames()
            self.give(lambda side: side.host.set_sregs(side.vcpu, mark.fields))
        elif mark.action == "run" and not self.result.entries:
            self.streams.clear()
        elif mark.action == "get_dirty_log":
            self.streams.compare(self.at)
            self.observer.dirty_log(mark["slot"], self.events[self.at + 1 :])
        elif mark.action != "dirty":
            if self.result.entries:
                self.streams.compare(self.at)
            if self.special_vm is not None and mark.action == "poke":
                self.special_vm.user_space_writes(mark["gpa"])
            self.give(lambda side: side.host.act(mark))
            for judge in self.judges:
                judge.host_acts(mark)


_HANDLERS: dict[type[AnyEvent], Callable[..., bool | None]] = {
    e.Exit: Replay.on_exit,
    e.VmEntry: Replay.on_entry,
    e.MmuPageFault: Replay.on_fault,
    e.MmuPageFaultRet: Replay.on_fault_return,
    e.Walk: Replay.on_walk,
    e.EmulateInsn: Replay.on_emulate,
    e.PteWrite: Replay.on_pte_write,
    e.Mmio: Replay.on_mmio,
    e.UnprotectPage: Replay.on_unprotect,
    e.UnprotectGfn: Replay.on_unprotect_gfn,
    e.Invlpg: Replay.on_invlpg,
    e.InvalidateGva: Replay.on_invalidate,
    e.InjException: Replay.on_inject,
    e.NestedVmenter: Replay.on_vmrun,
    e.NestedVmexitInject: Replay.on_vmexit,
    e.NestedVmenterFailed: Replay.on_switch_failed,
    e.Marker: Replay.on_marker,
    e.Other: Replay.on_other,
}


def replay(capture: Capture, roots: str | None = None, captured_on: str | None = None) -> ReplayResult:
    """Replay one capture on a fresh VM."""
    return Replay(capture, roots, captured_on).run()
