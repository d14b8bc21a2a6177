# SPDX-License-Identifier: GPL-2.0-only
"""One VM of a replay, with the host around it and the CPU that runs on its tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from shadowmmu.captures.capture import Capture
from shadowmmu.check.compare.match import Matcher
from shadowmmu.check.replayed.cpu import ReplayedCpu
from shadowmmu.check.replayed.host import ReplayedHost
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.errors import BadInput
from shadowmmu.trace.engine import from_records
from shadowmmu.trace.events import AnyEvent

T = TypeVar("T")
KERNEL_ROOTS = next(design.name for design in ROOT_DESIGNS.values() if design.kernel)
"""The packaged kernel's design: that of captures that do not say theirs."""


def captured_roots(capture: Capture, told: str | None = None) -> str:
    """The design of the captured kernel: its capture says it, else `told`. Raises BadInput if the two differ."""
    said = capture.setup.roots
    if said and told and said != told:
        raise BadInput(f"{capture.name} was captured on {said} roots, as it says itself: leave out --captured-on {told}")
    return said or told or KERNEL_ROOTS


class Judge(Protocol):
    """Who holds a replayed VM against rules of its own; raises a violation."""

    def judged(self, given: Callable[[ReplayedVm], T], side: ReplayedVm) -> T: ...


class ReplayedVm:
    """A VM with one design of roots, to which a capture's inputs are given."""

    def __init__(self, capture: Capture, roots: str, matcher: Matcher) -> None:
        self.matcher = matcher
        self.judge: Judge | None = None
        """Who looks at each input and at what comes of it; None: nobody."""
        self.host = ReplayedHost(capture, roots, matcher)
        self.vm = self.host.vm
        self.cpus = [ReplayedCpu(self.vm, vcpu, capture.setup.npt, capture.setup.tdp_mmu) for vcpu in self.vm.vcpus]
        self.select(0)
        self.vm.start_trace(1 << 16)

    def select(self, number: int) -> None:
        """What follows is of this vCPU: they take turns."""
        self.vcpu, self.cpu = self.vm.vcpus[number], self.cpus[number]

    def events(self) -> list[AnyEvent]:
        """What the engine did since the last call."""
        return from_records(self.vm.records())
