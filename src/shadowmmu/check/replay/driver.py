"""Drives a VM through a capture: gives the engine what the CPU, the guest and the VMM did, and compares what it does.

Inputs are: faults (address and error code), the emulator's use of the MMU (walks, writes, INVLPG), writes of control
registers, VMRUN and #VMEXIT, the VMM's actions, and the guest's plain stores. All else is output, and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from shadowmmu import EngineError, HostFault, Outcome, TripleFault
from shadowmmu.check.replay.capture import Capture, Op
from shadowmmu.check.replay.cpu import Cpu
from shadowmmu.check.replay.host import Host
from shadowmmu.check.replay.ignore import FLOODED, FLOODED_HERE, POKED, RECYCLED
from shadowmmu.check.replay.instructions import control_register_written, immediate_loaded
from shadowmmu.check.replay.lookahead import GP, efer_written, gets_gp, goes_to_l1, is_emulated, mark_is_old, pgd_loaded, rest_of_exit
from shadowmmu.check.replay.markers import Mark, parse
from shadowmmu.check.replay.match import Matcher
from shadowmmu.check.replay.nested import PF_EXIT, compare_exit, leave, vmcb_state
from shadowmmu.check.replay.observe import Observer
from shadowmmu.check.replay.origin import with_origins
from shadowmmu.check.replay.programme import Programme
from shadowmmu.check.replay.result import Diverged, Divergence, Page, Result
from shadowmmu.check.replay.streams import Streams
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent

T = TypeVar("T")
LME, LMA, PG = 1 << 8, 1 << 10, 1 << 31
IN_64_BIT_CODE = 1 << 3
"""kvm_emulate_insn's flag: the code segment is a 64-bit one."""
PF = 14
PRESENT, WRITE, USER, RSVD = 1, 2, 4, 8
"""Bits of a #PF error code."""
SHUTDOWN_EXIT, INIT_CR0 = 0x7F, 0x6000_0010
"""Exit code of the CPU's shutdown, upon which KVM resets the vCPU as INIT does, and CR0 after INIT (APM vol. 2 section 14.1)."""
SHUTDOWN = 8
"""KVM_EXIT_SHUTDOWN: the guest is over, and its last root is gone."""
MOST_FAULTS = 12
"""No access needs more: each level of two nested walks once."""


class Replay:
    """One capture on one VM."""

    def __init__(self, capture: Capture, roots: str = "legacy") -> None:
        self.capture = capture
        self.events = capture.events
        self.result = Result(capture.name, roots)
        self.matcher = Matcher()
        self.host = Host(capture, roots, self.matcher)
        self.vm = self.host.vm
        self.vcpu = self.vm.vcpus[0]
        self.cpu = Cpu(self.vm, self.vcpu, capture.setup.npt, capture.setup.tdp_mmu, roots == "special")
        foreign = capture.setup.tdp_mmu
        self.streams = Streams(self.vm, self.matcher, self._on_foreign_tables, foreign, roots == "special", self.operation)
        self.l1 = Programme(capture.guest.ops, capture.setup.npt)
        self.l2 = Programme(capture.guest.l2_ops, capture.setup.npt)
        self.at = 0
        self.rip = self.exit_reason = 0
        self.l2_exit = False
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
        self.parted = ""
        """Why this VM, with special roots, may go another way than the kernel from now on; empty: it may not."""
        self.writing = False
        """The emulator has stored to memory in the present exit."""
        self.vmcb = 0
        self.observer = Observer(self)

    # --- the loop

    def run(self, until: int | None = None) -> Result:
        """Replay to the end, to the first divergence, or until just before event `until`."""
        self.vm.start_trace(1 << 16)
        end = len(self.events) if until is None else min(until, len(self.events))
        try:
            while self.at < end and self.step():
                self.at += 1
            if self.at == until:
                return self.result
            self.streams.compare(self.at)
            self.observer.finish()
        except Diverged as stop:
            self.result.until = self.parted
            self.result.divergence = None if self.parted else with_origins(stop.divergence, self.capture)
        except EngineError as error:
            self.result.divergence = with_origins(self.diverge(f"the engine cannot go on: {error}").divergence, self.capture)
        self.result.events = self.streams.compared
        self.result.bugs = self.vm.bugs()
        return self.result

    def step(self) -> bool:
        """One event of the capture; False: the end."""
        event = self.events[self.at]
        self._note_parting(event)
        handler: Callable[[Any], bool | None] | None = _HANDLERS.get(type(event))
        if handler is None:
            self.streams.expect(self.at, event)
            return True
        return handler(self, event) is not False  # type: ignore[call-arg]

    def _note_parting(self, event: AnyEvent) -> None:
        """Note where what follows depends on how roots are made."""
        if self.streams.guest_view and isinstance(event, e.ZapOldest):
            self.parted = RECYCLED
        elif self.streams.guest_view and isinstance(event, e.PrepareZapPage) and self.writing and event.root_count:
            self.parted = FLOODED

    def diverge(self, what: str, page: Page | None = None) -> Diverged:
        """A difference that is not one of two events."""
        return Diverged(Divergence(what, self.at, self.operation(), list(self.streams.past), page))

    def operation(self) -> str:
        """What the guest is doing, for people."""
        programme = self.l2 if self.vcpu.guest_mode and self.l2.now else self.l1
        return f"{'L2 ' if programme is self.l2 else ''}{programme.describe()}, at rip {self.rip:x}"

    def _on_foreign_tables(self) -> bool:
        return self.capture.setup.tdp_mmu and not self.vcpu.guest_mode

    def programme(self) -> Programme:
        """That of the guest that runs now."""
        return self.l2 if self.vcpu.guest_mode else self.l1

    # --- exits and entries

    def on_exit(self, event: e.Exit) -> None:
        self.rip, self.exit_reason = event.guest_rip, event.exit_reason
        self.outcome = None
        self.faulted = self.failed_walk = self.refused = False
        self.switched = None
        self.writing = False
        op = self.programme().seen_at(self.rip)
        if op is not None:
            self.done_without_exit(op)
        if event.exit_reason == SHUTDOWN_EXIT and not goes_to_l1(self.events, self.at):
            self.vcpu.set_sregs(INIT_CR0, 0, 0, 0)
        efer = efer_written(self.events, self.at)
        if efer is not None:
            self.refused = not self.vcpu.set_efer(efer & ~LMA | self.vcpu.efer & LMA)

    def done_without_exit(self, op: Op) -> None:
        """A plain store, or with nested paging a write of CR3, which the hardware then does alone."""
        if op.writes_cr3:
            self.vcpu.cr3 = op.val
        else:
            self.store(op)

    def store(self, op: Op) -> None:
        """A plain store that the guest has done."""
        data = (op.val & (1 << 8 * op.size) - 1).to_bytes(op.size, "little")
        if self.cpu.guest_refuses(op.va, op.cpl == 3):
            return
        if not self.may_fault(lambda: self.cpu.store(op.va, data, op.cpl == 3) or None, op, WRITE):
            raise self.diverge(f"the guest stored to {op.va:x} without a fault, but our tables do not allow it")
        self.result.stores += 1

    def may_fault(self, access: Callable[[], T | None], op: Op, code: int) -> T | None:
        """Do an access. On other roots than the kernel's the CPU may have to fault first where it did not on those."""
        for _ in range(MOST_FAULTS if self.streams.guest_view else 0):
            done = access()
            if done is not None:
                return done
            user = USER if op.cpl == 3 or self.capture.setup.npt else 0
            if self.vcpu.page_fault(self.cpu.missed, code | user) not in (Outcome.FIXED, Outcome.SPURIOUS, Outcome.RETRY):
                return None
            self.streams.forget_engine()
        return access()

    def on_entry(self, event: e.VmEntry) -> None:
        try:
            entry = self.vcpu.enter()
        except TripleFault as error:
            raise self.diverge(f"the kernel enters the guest, the engine shuts it down: {error}") from error
        self.cpu.root, self.cpu.level = entry.root, entry.level
        self.streams.compare(self.at)
        self.result.entries += 1

    def _fail_to_enter(self) -> None:
        """The kernel found no root to enter the guest with: a shutdown, which L1 gets if the guest is its L2."""
        try:
            self.vcpu.enter()
        except TripleFault:
            return
        raise self.diverge("the kernel finds no root for the guest, the engine has one")

    def on_fault(self, event: e.MmuPageFault) -> None:
        self.streams.compare(self.at)
        self.outcome = self._fault(event.addr, event.err)
        self.faulted = self.outcome == Outcome.INJECT and self.vcpu.exception is not None and not self.vcpu.exception.nested
        if self.streams.guest_view and self.outcome in (Outcome.FIXED, Outcome.SPURIOUS) and is_emulated(self.events, self.at):
            # A write to a table that the kernel shadows since its root was made; ours is not linked, and simply written.
            self.outcome = Outcome.EMULATE
        self.streams.pull()
        self.returned = self.streams.take_return()
        self.streams.expect(self.at, event)

    def _fault(self, address: int, code: int) -> Outcome:
        if self.streams.guest_view and code & RSVD and self.cpu.is_unlinked(address):
            # The kernel's CPU met a mark of MMIO. Ours finds nothing yet: it takes a plain fault, and then may meet the mark.
            outcome = self._fault(address, code & ~(RSVD | PRESENT))
            if outcome != Outcome.EMULATE or mark_is_old(self.events, self.at):
                return outcome
            self.cpu.undo_bits(self.streams.forget_engine())
        try:
            return self.vcpu.page_fault(address, code)
        except HostFault:
            return Outcome.RETRY

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
                self.failed_walk = self.vcpu.gva_to_gpa(event.addr, event.pferr) is None
            self.streams.pull()
        self.streams.expect(self.at, event)

    def _translates_nested(self, gva: int, access: int) -> bool:
        """The emulator walks tables that the CPU has walked, and marked, before."""
        rest = list(rest_of_exit(self.events, self.at))
        refused = self.cpu.refused_pdpte(gva, rest)
        self.cpu.take_bits(gva, rest, () if refused is None else self.vcpu.pdptrs)
        if refused is not None:
            self.cpu.mark(refused, True)
        translates = self.vcpu.gva_to_gpa(gva, access) is not None
        if refused is not None:
            self.cpu.mark(refused, False)
        return translates

    def on_emulate(self, event: e.EmulateInsn) -> None:
        if self.outcome not in (None, Outcome.EMULATE):
            raise self.diverge(f"the kernel emulates the instruction, the engine says {self.outcome.name}")
        self.streams.compare(self.at)
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
        write = {0: self.vcpu.set_cr0, 3: self.vcpu.set_cr3, 4: self.vcpu.set_cr4}[cr]
        self.refused = (cr == 0 and self._is_paging_switch_in_64_bit_code(event, value)) or not write(value)
        self.streams.pull()

    def _is_paging_switch_in_64_bit_code(self, event: e.EmulateInsn, value: int) -> bool:
        """CR0.PG cannot change there; the engine does not know CS, the emulator's event does."""
        return bool(event.flags & IN_64_BIT_CODE and self.vcpu.efer & LME and (value ^ self.vcpu.cr0) & PG)

    def _register_operand(self, event: e.EmulateInsn, cr: int) -> int | None:
        """What MOV CRn takes from a register: told by the guest's author, the code just before, or new_pgd behind it."""
        value = self.programme().operand(event.rip)
        if value is not None:
            return value
        code = self.cpu.load(event.csbase + event.rip - 10, 10, False)
        value = immediate_loaded(code, event.insn) if code else None
        return pgd_loaded(self.events, self.at) if value is None and cr == 3 else value

    def on_pte_write(self, event: e.PteWrite) -> None:
        if self._asked_from_outside():
            self.streams.compare(self.at)
            size = min(event.bytes, 8)
            flooded = self._flooded()
            self.vcpu.write_emulated(event.gpa, (event.val & (1 << 8 * size) - 1).to_bytes(size, "little"))
            if self.streams.guest_view and self._flooded() > flooded and not self._zaps_now():
                self.parted = FLOODED_HERE
            self.programme().emulated(self.rip)
            self.writing = True
        self.streams.expect(self.at, event)

    def _flooded(self) -> int:
        return self.vm.counters()["mmu_flooded"] if self.streams.guest_view else 0

    def _zaps_now(self) -> bool:
        """Whether the kernel zaps pages in the present exit."""
        return any(isinstance(ev, e.PrepareZapPage) for ev in rest_of_exit(self.events, self.at))

    def on_mmio(self, event: e.Mmio) -> None:
        self.programme().emulated(self.rip)
        self.observer.expects_value = False

    def on_unprotect(self, event: e.UnprotectPage) -> None:
        self.failed_walk = False  # it was only to find this page, at a fault while an event was delivered
        if self._asked_from_outside():
            self.streams.compare(self.at)
            self.vm.unprotect_page(event.gfn)
        self.streams.expect(self.at, event)

    def on_invlpg(self, event: e.Invlpg) -> None:
        if self._asked_from_outside():
            self.streams.compare(self.at)
            self.vcpu.invlpg(event.gva)
        self.streams.expect(self.at, event)

    def on_invalidate(self, event: e.InvalidateGva) -> None:
        self.streams.pull()
        if self._asked_from_outside() and self.failed_walk:
            self.streams.compare(self.at)
            self.failed_walk = False
            self.faulted = True
            self.vcpu.inject()
        self.streams.expect(self.at, event)

    def on_inject(self, event: e.InjException) -> None:
        self.programme().faulted(self.rip)
        if event.reinjected:
            return
        if event.exception == PF:
            if self.failed_walk:  # requests may have been served since, which the engine does at entry: nothing to compare yet
                self.failed_walk = False
                self.vcpu.inject()
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
        self.switched = self.vcpu.nested_vmrun(*vmcb_state(self.vm, event.vmcb))

    def on_vmexit(self, event: e.NestedVmexitInject) -> None:
        """Back to L1: by an exit of L2, or while L2 was to be entered with an exception that L1 takes, or without a root."""
        takes_fault = event.exit_code == PF_EXIT and (self.faulted or self.failed_walk)
        if takes_fault and self.failed_walk:
            self.vcpu.inject()
        # A fault while a double fault was delivered: KVM_REQ_TRIPLE_FAULT, which is served as L2 is entered.
        at_entry = takes_fault or event.exit_code == SHUTDOWN_EXIT != self.exit_reason
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
        leave(self.vm, self.vcpu, self.vmcb)
        self.switched = self.vcpu.nested_vmexit(at_entry=at_entry)

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
        elif mark.who == "H":
            if mark.action in ("closing", "WATCHDOG"):
                return False
            if mark.fields.get("exit_reason") == SHUTDOWN:
                if self.streams.kernel_has(e.MmuLoad):
                    self._fail_to_enter()
                self.observer.last_dump = None
            self._host_does(mark)
        return None

    def _host_does(self, mark: Mark) -> None:
        if mark.action == "set_sregs":
            if not self.result.entries:
                self.host.load_image()
                self.host.seed_frames()
            self.vcpu.set_sregs(mark["cr0"], mark["cr3"], mark["cr4"], mark["efer"])
        elif mark.action == "run" and not self.result.entries:
            self.streams.clear()
        elif mark.action == "get_dirty_log":
            self.streams.compare(self.at)
            self.observer.dirty_log(mark["slot"], self.events[self.at + 1 :])
        elif mark.action != "dirty":
            if self.result.entries:
                self.streams.compare(self.at)
            if mark.action == "poke" and self.streams.guest_view:
                self.parted = self.parted or POKED
            self.host.act(mark)


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
    e.Invlpg: Replay.on_invlpg,
    e.InvalidateGva: Replay.on_invalidate,
    e.InjException: Replay.on_inject,
    e.NestedVmenter: Replay.on_vmrun,
    e.NestedVmexitInject: Replay.on_vmexit,
    e.NestedVmenterFailed: Replay.on_switch_failed,
    e.Marker: Replay.on_marker,
}


def replay(capture: Capture, roots: str = "legacy") -> Result:
    """Replay one capture on a fresh VM."""
    return Replay(capture, roots).run()
