# SPDX-License-Identifier: GPL-2.0-only
"""What a replay works on: the capture, the VM that it is given to, and the two streams that are compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from shadowmmu import Vcpu, Vm
from shadowmmu.captures.capture import Capture, Op
from shadowmmu.captures.programme import Programme
from shadowmmu.check.compare.match import Matcher
from shadowmmu.check.compare.result import Diverged, Divergence, Page, ReplayResult
from shadowmmu.check.compare.streams import Streams
from shadowmmu.check.replayed.cpu import ReplayedCpu
from shadowmmu.check.replayed.inputs import Input, answer
from shadowmmu.check.replayed.replayed_vm import KERNEL_ROOTS, ReplayedVm, captured_roots
from shadowmmu.check.special_roots.special_vm import SpecialVm
from shadowmmu.errors import BadInput

T = TypeVar("T")


class ReplayState:
    """One capture on one VM, and what the replay has come to."""

    def __init__(self, capture: Capture, roots: str | None = None, captured_on: str | None = None) -> None:
        """`roots`: the captured kernel's, if not given, whose design `captured_on` tells where the capture does not."""
        self.capture = capture
        self.events = capture.events
        theirs = captured_roots(capture, captured_on)
        roots = roots or theirs
        if roots != theirs != KERNEL_ROOTS:
            raise BadInput(f"{capture.name} was captured on {theirs} roots and replays on these alone: leave out --roots {roots}")
        self.result = ReplayResult(capture.name, roots, captured_on=theirs)
        self.side = ReplayedVm(capture, theirs, Matcher())
        self.host, self.vm = self.side.host, self.side.vm
        self.streams = Streams(self.vm, self.side.matcher, self._on_foreign_tables, capture.setup.tdp_mmu, self.operation)
        self.special_vm = SpecialVm(capture, roots, self.side, self.streams) if roots != theirs else None
        self.l1 = Programme(capture.guest.ops, capture.setup.npt)
        self.l2 = Programme(capture.guest.l2_ops, capture.setup.npt)
        self.at = 0
        """The event of the capture that is at hand."""
        self.rip = 0
        self.vmcb = 0
        """That of the last VMRUN."""

    @property
    def vcpu(self) -> Vcpu:
        """The one whose turn it is."""
        return self.side.vcpu

    @property
    def cpu(self) -> ReplayedCpu:
        return self.side.cpu

    def select(self, number: int) -> None:
        """From here on another vCPU runs."""
        self.side.select(number)
        if self.special_vm is not None:
            self.special_vm.side.select(number)

    @property
    def seen(self) -> Vm:
        """The VM that the replay is about."""
        return self.vm if self.special_vm is None else self.special_vm.side.vm

    def diverge(self, what: str, page: Page | None = None) -> Diverged:
        """A difference that is not one of two events."""
        return Diverged(Divergence(what, self.at, self.operation(), list(self.streams.past), page))

    def operation(self) -> str:
        """What the guest is doing, for people."""
        programme = self.l2 if self.vcpu.guest_mode and self.l2.now else self.l1
        return f"{'L2 ' if programme is self.l2 else ''}{programme.describe()}, at rip {self.rip:x}"

    def _on_foreign_tables(self) -> bool:
        return self.capture.setup.tdp_mmu and not self.vcpu.guest_mode

    def give(self, given: Input[T]) -> T:
        """Give something to the engine, and to the VM beside it with other roots. What the engine does upon it is compared later."""
        look = None if self.special_vm is None else self.special_vm.look(given)
        ours = answer(given, self.side)
        events = self.side.events()
        self.streams.grow(events)
        if self.special_vm is not None and look is not None:
            self.special_vm.follow(given, ours, events, look)
        return ours.get()

    def sides(self) -> Iterator[ReplayedVm]:
        """The VMs of the replay: that which is held against the kernel, and one with other roots beside it."""
        yield self.side
        if self.special_vm is not None:
            yield self.special_vm.side

    def programme(self) -> Programme:
        """That of the guest that runs now."""
        return self.l2 if self.vcpu.guest_mode else self.l1

    def done_without_exit(self, op: Op) -> None:
        """A plain store, or with nested paging a write of CR3, which the hardware then does alone."""
        if op.writes_cr3:
            self.give(lambda side: setattr(side.vcpu, "cr3", op.val))
        else:
            self.store(op)

    def store(self, op: Op) -> None:
        """A plain store that the guest has done."""
        data = (op.val & (1 << 8 * op.size) - 1).to_bytes(op.size, "little")
        if self.cpu.guest_refuses(op.va, op.cpl == 3):
            return
        if not self.cpu.store(op.va, data, op.cpl == 3):
            raise self.diverge(f"the guest stored to {op.va:x} without a fault, but our tables do not allow it")
        if self.special_vm is not None:
            self.special_vm.store(op, data)
        self.result.stores += 1
