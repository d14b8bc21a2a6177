# SPDX-License-Identifier: GPL-2.0-only
"""User space of a rerun: memory, memslots, the ports by which the guest talks, and the host script."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shadowmmu import Vm
from shadowmmu.captures.capture import Capture
from shadowmmu.captures.lookahead import rescheduled_faults
from shadowmmu.captures.markers import Mark
from shadowmmu.check.compare.match import Matcher
from shadowmmu.check.replayed.host import ReplayedHost
from shadowmmu.check.rerun.ageing import Ageing
from shadowmmu.check.rerun.captured_cpu import CapturedCpu
from shadowmmu.check.rerun.entry_state import entry_states, starting_state
from shadowmmu.check.rerun.script import END, STATS, Script
from shadowmmu.check.rerun.vcpu import CapturedVcpu
from shadowmmu.trace import events as e
from shadowmmu.trace.engine import from_records
from shadowmmu.trace.events import AnyEvent, Marker
from shadowmmu.trace.fields import Word

PORTS = {
    0xE0: "op={:d}", 0xE1: "hostcall={:d}", 0xE2: "pf cr2lo={:x}", 0xE3: "pf err={:x}", 0xE4: "val={:x}", 0xE5: "pf cr2hi={:x}",
    0xE6: "BAD={:x}", 0xE7: "gp err={:x}", 0xE8: "l2exit code={:x}", 0xE9: "l2exit info1={:x}", 0xEA: "l2exit info2={:x}",
    0xEB: "l2op={:d}",
}  # fmt: skip
"""What the guest tells by each port, as the captures' VMM wrote it into the trace."""
HOST_CALL = 0xE1


class Vmm:
    """One capture's guest on a fresh VM.

    `on_marker` is called with all events up to a line of the guest's, it included; `on_stats` where the script takes counters.
    """

    def __init__(
        self,
        capture: Capture,
        roots: str,
        matcher: Matcher,
        on_marker: Callable[[list[AnyEvent]], None],
        on_stats: Callable[[str], None],
    ) -> None:
        self.capture = capture
        self.host = ReplayedHost(capture, roots, matcher)
        self.vm: Vm = self.host.vm
        self.script = Script(capture.guest)
        self._on_marker, self._on_stats = on_marker, on_stats
        self._events: list[AnyEvent] = []
        self._faults = 0
        self._rescheduled = rescheduled_faults(capture.events)
        self._exit_at = 0
        """Which of them was the first behind the last exit."""
        self._ageing = Ageing(capture.events, self._age)
        self._seq = 0
        self._registers: Mark | None = None
        """Registers that user space has set while the CPU stood behind its OUT."""
        self._turn_to = 0
        """Which vCPU runs next."""
        self.ended = False
        self._set_up()

    def _set_up(self) -> None:
        for mark in self.script.set_up():
            self.host.act(mark)
        self.host.load_image()
        self.host.seed_frames()
        self.vcpus = [CapturedVcpu(vcpu, self, self, self._stored, self._host_stored, self._mmio) for vcpu in self.vm.vcpus]
        for vcpu, state in zip(self.vcpus, entry_states(self.capture), strict=True):
            self._load(vcpu, state)
        self.vcpu = self.vcpus[0]
        self.vm.start_trace(1 << 16)

    @property
    def cpu(self) -> CapturedCpu:
        """Of the vCPU that runs: they take turns, as the script says."""
        return self.vcpu.cpu

    def _load(self, vcpu: CapturedVcpu, state: Mapping[str, int]) -> None:
        """KVM_SET_SREGS, KVM_SET_REGS."""
        self.host.set_sregs(vcpu.processor.vcpu, state)
        vcpu.cpu.set_state(starting_state(state))

    # --- events

    def _pull(self) -> None:
        for event in from_records(self.vm.records()):
            if self.vm.tdp and isinstance(event, e.MmuPageFault):  # whose cause the CPU leaves to the machine to find out
                rip = Word(self.cpu.state().rip)
                self._events.append(e.PageFault(guest_rip=rip, fault_address=event.addr, error_code=event.err))
            self._events.append(event)

    def tell(self, event: AnyEvent) -> None:
        """An event of the vCPU loop, after what the MMU did so far."""
        self._pull()
        self._events.append(event)

    def tell_injection(self, event: e.InjException) -> None:
        """KVM injects when it has served requests, and before it loads a root (vcpu_enter_guest)."""
        self._pull()
        loads = [at for at, told in enumerate(self._events) if at >= self._exit_at and isinstance(told, e.MmuLoad)]
        self._events.insert(loads[-1] if loads else len(self._events), event)

    def exited(self) -> None:
        """What the MMU does from here on it does upon this exit."""
        self._pull()
        self._exit_at = len(self._events)

    def faults(self) -> None:
        """Where another task took the captured CPU in the midst of a fault, the host's timing, it is taken here."""
        self._ageing.passes(self._seq, self._faults)
        self._faults += 1
        self.vm.reschedule(self._rescheduled.get(self._faults, 0))

    def take_return(self) -> AnyEvent | None:
        """The return of the fault that the MMU has just handled, as KVM has more to do before it returns."""
        self._pull()
        if self._events and isinstance(self._events[-1], e.MmuPageFaultRet):
            return self._events.pop()
        return None

    def take(self) -> list[AnyEvent]:
        """Everything since the last call."""
        self._pull()
        events, self._events, self._exit_at = self._events, [], 0
        return events

    def _mark(self, text: str) -> None:
        self._ageing.passes(self._seq, self._faults)
        self._seq += 1
        self.tell(Marker(text=f"G seq={self._seq} {text}"))
        self._on_marker(self.take())

    # --- the guest talks

    def read(self, port: int, size: int) -> int:
        """IN: this user space has nothing to say, and KVM has put zeroes there for it."""
        return 0

    def write(self, port: int, size: int, value: int) -> None:
        """OUT: user space has its turn before the next instruction."""
        caller = self.cpu
        self._mark(PORTS.get(port, f"port={port:x} val={{:x}}").format(value))
        if port == HOST_CALL:
            self._call(value == END)
        caller.stop()

    def _call(self, end: bool) -> None:
        """The VMM does the next part of its script."""
        self.ended = end and self.script.is_over
        for command in self.script.call():
            self._do(command)

    def before_entry(self) -> None:
        """The captured host looks at its pages while the guest stands where it is now, or where it will be stopped for that."""
        self.cpu.pause_at = self._ageing.enters(self._seq, self._faults, self.cpu.state().rip)

    def _age(self, start: int, end: int) -> None:
        """A is cleared. The captured CPU, which has no translations behind VMRUN, sets it again when it uses a page; so does this one."""
        self.host.age(start, end)
        for vcpu in self.vcpus:
            vcpu.cpu.flush_all()

    def after_exit(self) -> None:
        """An exit has been handled, and the CPU still stands there: take the events with its RIP, and load registers
        (KVM_SET_SREGS, KVM_SET_REGS) if user space had that done meanwhile."""
        self._pull()
        processor = self.vcpu.processor
        if processor.halted:
            processor.halted = False
            processor.advance(processor.capture())
            self._call(end=True)
        if self._registers is not None:
            mark, self._registers = self._registers, None
            self._load(self.vcpu, mark.fields)
        self.vcpu = self.vcpus[self._turn_to]

    def _do(self, command: str) -> None:
        if command.startswith(STATS):
            self._on_stats(command.removeprefix(STATS).strip())
            return
        mark = self.script.mark(command)
        if mark.action == "get_dirty_log":
            self._dirty_log(mark["slot"])
            return
        if mark.action == "set_sregs":
            self._registers = mark
            return
        if mark.action == "on":
            self._turn_to = mark["vcpu"]
            return
        self.host.act(mark)
        if mark.action in ("madvise_dontneed", "poke"):
            for vcpu in self.vcpus:
                vcpu.cpu.all_code_changed()

    def _dirty_log(self, slot: int) -> None:
        base = self.script.slots[slot].gpa >> 12
        bitmap = self.vm.get_dirty_log(slot)
        for i in range(8 * len(bitmap)):
            if bitmap[i >> 3] >> (i & 7) & 1:
                self.tell(Marker(text=f"H dirty gfn={base + i:x}"))

    def _mmio(self, gpa: int, size: int, is_write: bool) -> None:
        self._mark(f"mmio gpa={gpa:x} len={size} write={is_write:d}")

    # --- stores that the CPU does not do itself

    def _stored(self, gpa: int, size: int) -> None:
        hpa = self.vm.host_address(gpa)
        if hpa is not None:
            self._host_stored(hpa, size)

    def _host_stored(self, hpa: int, size: int) -> None:
        for vcpu in self.vcpus:
            vcpu.cpu.code_changed(hpa, size)
