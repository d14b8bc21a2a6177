# SPDX-License-Identifier: GPL-2.0-only
"""The loop of one vCPU: enter the guest, run it, have its exit handled, deliver what comes of it (KVM: vcpu_run)."""

from collections.abc import Callable, Mapping

from shadowmmu.machine.emulator.decode import StaleCode
from shadowmmu.machine.exits.alignment import run_aligned
from shadowmmu.machine.exits.handlers import HANDLERS, Handler
from shadowmmu.machine.exits.page_boundary import run_exactly
from shadowmmu.machine.exits.watchpoints import run_watched
from shadowmmu.machine.loop.entry import enter
from shadowmmu.machine.loop.injection import Injection, Rules
from shadowmmu.machine.loop.outside import take_from_outside
from shadowmmu.machine.memory.linear_memory import GuestFault, NestedFault
from shadowmmu.machine.seam import Exit, ExitKind
from shadowmmu.machine.svm.reflect import leave_by, reflect, shut_down
from shadowmmu.machine.vcpu.deliver import TaskSwitch
from shadowmmu.machine.vcpu.processor import Processor


class VcpuLoop:
    """Makes a `processor` run.

    on_store, on_host_store  hear of stores that the CPU does not do itself, by guest physical and host physical address
    handlers                 of the exits
    rules                    what this CPU makes of faults that a delivery meets
    """

    def __init__(
        self,
        processor: Processor,
        on_store: Callable[[int, int], None],
        on_host_store: Callable[[int, int], None],
        handlers: Mapping[ExitKind, Handler] = HANDLERS,
        rules: Rules | None = None,
    ) -> None:
        self.processor = processor
        self._injection = Injection(processor, on_store, on_host_store, rules or Rules())
        self._handlers = handlers

    def step(self) -> Exit:
        """Enter the guest and handle the exit."""
        p = self.processor
        take_from_outside(p)
        if p.waits_for_startup:
            return Exit(ExitKind.INTERRUPTED)  # an INIT has come
        if p.pending is not None:
            self._deliver()
        enter(p)
        while p.pending is not None:  # L2 had no root, and L1, which steps, traps before it goes on
            self._deliver()
            enter(p)
        exit_ = self._run()
        p.take_cr3()
        if exit_.kind is not ExitKind.INTERRUPTED:
            p.count(exit_.kind)
            self._handle(exit_)
            if p.pending is not None:
                self._deliver()
        return exit_

    def _run(self) -> Exit:
        """As ever, or instruction by instruction, where something is asked for that this CPU does not do."""
        p = self.processor
        if p.svm.watches_data:
            return run_watched(p)
        if p.quick is not None and p.quick.met_alignment:
            return run_aligned(p, p.quick)
        return run_exactly(p.cpu, p.fetcher)

    def _handle(self, exit_: Exit) -> None:
        """L1 is asked first; the handler's exceptions are the guest's."""
        p = self.processor
        p.witness.exited(exit_)
        try:
            if not reflect(p, exit_):
                self._handlers[exit_.kind](p, exit_)
        except GuestFault as fault:
            p.queue_fault(fault)
        except NestedFault as nested_fault:
            leave_by(p, nested_fault)
        except StaleCode:
            p.cpu.all_code_changed()
        except TaskSwitch as end:
            self._shut_down_l2(end)

    def _deliver(self) -> None:
        try:
            self._injection.deliver_pending()
        except TaskSwitch as end:
            self._shut_down_l2(end)

    def _shut_down_l2(self, end: TaskSwitch) -> None:
        """A task switch ends L2, or the machine."""
        if self.processor.nested is None:
            raise end
        shut_down(self.processor, str(end))
