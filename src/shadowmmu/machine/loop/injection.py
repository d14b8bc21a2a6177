# SPDX-License-Identifier: GPL-2.0-only
"""Delivery of queued events: what KVM injects, and what the CPU then does with it by itself."""

from collections.abc import Callable

from shadowmmu.engine.face.types import Outcome
from shadowmmu.machine.exits.task_switch import switch_by_gate
from shadowmmu.machine.loop.entry import enter
from shadowmmu.machine.memory.cpu_memory import CpuMemory
from shadowmmu.machine.memory.linear_memory import SYSTEM, Event, GuestFault, NestedFault
from shadowmmu.machine.seam import ExitKind, State
from shadowmmu.machine.svm.reflect import leave_by, shut_down, takes_event
from shadowmmu.machine.vcpu.deliver import TaskGate, TaskSwitch, TripleFaultDelivery, deliver, second_event
from shadowmmu.machine.vcpu.pending import Origin, Pending
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.x86.control import Cr0
from shadowmmu.x86.debug import DR7_GENERAL_DETECT
from shadowmmu.x86.vectors import DB, PF

_PG = int(Cr0.PG)
"""The gfn of an address that leads nowhere, as KVM has it."""


class _LeftL2(Exception):
    """The engine could make no root for L2, and L1 took over."""


class Rules:
    """What a CPU makes of faults that a delivery meets: as the manuals have it."""

    def error_code(self, code: int) -> int:
        """Of a page fault."""
        return code

    def second_event(self, first: Pending, second: Pending) -> Event:
        """What `second` becomes. Raises TripleFaultDelivery."""
        return second_event(first.event, second.event)


class Injection:
    """Delivers the events of one vCPU.

    on_store, on_host_store  hear of stores, by guest physical and host physical address
    """

    def __init__(
        self,
        p: Processor,
        on_store: Callable[[int, int], None],
        on_host_store: Callable[[int, int], None],
        rules: Rules,
    ) -> None:
        self._p = p
        self._memory = CpuMemory(p.vcpu, on_store, on_host_store, self, p.translations, p.memory.mmio)
        self._rules = rules
        self._now: Pending

    def deliver_pending(self) -> None:
        """Deliver what is queued, unless L1 takes it; so L1's single-step trap behind it too."""
        p = self._p
        while p.pending is not None:
            pending, p.pending = p.pending, None
            if not takes_event(p, pending):
                self._deliver(pending)

    def _deliver(self, pending: Pending) -> None:
        """What faults on the way is merged with the event as the CPU does, or ends it by an exit to L1."""
        next_: Pending | None = pending
        try:
            while next_ is not None:
                next_ = self._attempt(next_)
        except _LeftL2:
            pass  # L1 has had a shutdown exit, and the event is gone with L2's state

    def _attempt(self, pending: Pending) -> Pending | None:
        """Deliver one event; what comes of a fault on the way is to be delivered next."""
        p, event = self._p, pending.event
        self._begin(pending)
        state = p.capture()
        if event.vector == DB and event.is_exception:  # its handler may use the debug registers
            state.system = state.system._replace(dr7=state.system.dr7 & ~DR7_GENERAL_DETECT)
        if event.cr2 is not None:
            p.vcpu.cr2 = event.cr2
        p.injected[event.name] += 1
        try:
            p.cpu.set_state(self._delivered(state, event))
        except NestedFault as nested_fault:
            leave_by(p, nested_fault, event)
        except GuestFault as fault:
            return self._merged(pending, fault)
        return None

    def _delivered(self, state: State, event: Event) -> State:
        p = self._p
        try:
            return deliver(state, p.vcpu.cr0, p.vcpu.efer, self._memory, event)
        except TaskGate as gate:
            if p.nested is not None:
                raise TaskSwitch(f"{event.name} of L2 goes through a task gate; use an interrupt gate in its IDT") from None
            return switch_by_gate(p, self._memory, state, gate.selector, event)

    def _begin(self, pending: Pending) -> None:
        """On hardware delivery is part of the guest entry, so the engine's requests are served first."""
        self._now = pending
        if self._p.vcpu.requests or self._p.vcpu.root is None:
            self._enter()
        self._p.witness.delivers(pending)
        self._memory.begin()

    def _merged(self, first: Pending, fault: GuestFault) -> Pending | None:
        """What a fault in a delivery becomes; None: L1 takes it. A #PF of shadow paging leaves the guest, any other fault does not."""
        p = self._p
        p.report(fault)
        origin = Origin.KVM if fault.event.vector == PF and not p.vcpu.vm.tdp else Origin.CPU
        second = Pending(fault.event, origin)
        if takes_event(p, second, first.event):
            return None
        if fault.event.cr2 is not None:
            p.vcpu.cr2 = fault.event.cr2
        try:
            merged = Pending(self._rules.second_event(first, second), origin)
        except TripleFaultDelivery as end:
            shut_down(p, str(end), at_entry=origin is Origin.KVM)
            return None
        if merged != second and takes_event(p, merged, first.event):
            return None
        return merged

    # --- exits in the midst of a delivery: `memory.cpu_memory.DeliveryExits`

    def page_fault(self, gva: int, access: int, code: int) -> Outcome:
        """Of the shadow tables."""
        vcpu, code = self._p.vcpu, self._rules.error_code(code)
        self._p.witness.delivery_faults(gva, code)
        user = self._p.cpu.state().cpl == 3
        vcpu.unprotect_in_delivery(gva, user, False)
        lifts_smap = vcpu.ac
        vcpu.ac = lifts_smap and not access & SYSTEM
        outcome: Outcome = vcpu.page_fault(gva, code)
        vcpu.ac = lifts_smap
        if outcome is Outcome.EMULATE and vcpu.unprotect_in_delivery(gva, user, True):
            outcome = Outcome.RETRY
        if outcome is Outcome.FIXED and self._p.takes_from_user(code):
            self._p.cpu.flush_page(gva)
        self._p.count_fault(ExitKind.PAGE_FAULT, outcome)
        return outcome

    def nested_page_fault(self, gpa: int, code: int) -> Outcome:
        """Of the nested tables."""
        outcome: Outcome = self._p.vcpu.page_fault(gpa, code)
        self._p.count_fault(ExitKind.NESTED_PAGE_FAULT, outcome)
        return outcome

    def reenter(self) -> None:
        """It is mended: the guest is entered with the event once more."""
        self._enter()
        self._p.witness.delivers_again(self._now)

    def _enter(self) -> None:
        """The delivery ends if L2 does."""
        running = self._p.nested
        enter(self._p)
        if self._p.nested is not running:
            raise _LeftL2
