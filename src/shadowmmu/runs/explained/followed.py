# SPDX-License-Identifier: GPL-2.0-only
"""What is known so far of a trace: what is under way on each vCPU, and what came of it, within bounds."""

from __future__ import annotations

from collections import Counter, deque

from shadowmmu.look.data import Hex
from shadowmmu.runs.explained.answers import Answers
from shadowmmu.runs.explained.explanation import Anomaly, FaultSeen, Path, Rule, Step
from shadowmmu.runs.explained.faults import MOST_STEPS, Fault
from shadowmmu.runs.explained.order import RESERVED, Order
from shadowmmu.runs.explained.pages import Pages
from shadowmmu.runs.explained.vms import Threads
from shadowmmu.runs.explained.walks import Walks
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.ftrace.access import access_of, access_of_ept, is_qualification
from shadowmmu.trace.ftrace.guess import Kernel
from shadowmmu.trace.origins import ALWAYS, origin_of
from shadowmmu.trace.origins.later import function_at, function_of_vendor
from shadowmmu.trace.origins.origin import WINDOW, Around, Origin
from shadowmmu.trace.origins.tracepoints import origin_by_tracepoints
from shadowmmu.trace.text import to_text

SHOWN = 10
"""Anomalies and faults that are kept, the first of them; the others are counted."""
MOST_PATHS = 10_000
GFNS_ARE_REQUESTED = (5, 16)
"""The kernel since which kvm_mmu_spte_requested tells a gfn, and not the page of a linear address."""


class Cpu:
    """What is under way on one vCPU."""

    def __init__(self, requests_have_gfns: bool, nested_paging: bool) -> None:
        self.before: deque[AnyEvent] = deque(maxlen=WINDOW)
        self.around = Around(e.MmuUnload(), self.before, (), nested_paging)
        """The present event among them."""
        self.walks = Walks()
        self.order = Order(self.walks, requests_have_gfns)
        self.fault: Fault | None = None
        self.probed = self.sweeps = False
        self.exit_is_no_fault = False
        """The CPU left the guest for something else: a walk is the emulator's."""
        self.root = "no root told"
        self.in_l2: bool | None = None
        self.faults = 0


class Followed:
    """What was met: faults, rules, contradictions, each VM's pages. `kernel`: whose it is, as far as that is known."""

    def __init__(self, kernel: Kernel, nested_paging: bool = True) -> None:
        self.version, self.nested_paging = kernel.version, nested_paging
        self.requests_have_gfns = kernel.since >= GFNS_ARE_REQUESTED
        self.number = self.line = self.faults = self.anomaly_count = 0
        self.exits: Counter[str] = Counter()
        self.ept = False
        """Exits of an EPT were told."""
        self.ept_violations = self.vmx = False
        self.exit_is_no_fault = False
        """The exit told last was for no page fault."""
        self.paths: dict[tuple[str, str], Path] = {}
        self.shown: list[FaultSeen] = []
        self.rules: dict[int, Rule] = {}
        """By the row of the table of origins, which is there for good."""
        self.syncs: Counter[str] = Counter()
        self.anomalies: list[Anomaly] = []
        self.threads = Threads()
        self.cpus: dict[tuple[int, int], Cpu] = {}
        self.place = (0, 0)
        """VM and vCPU of the present event."""
        self.pages_of: dict[int, Pages] = {}
        self.answers_of: dict[int, Answers] = {}

    def rule_of(self, cpu: Cpu, event: AnyEvent) -> Origin:
        origin = ALWAYS.get(type(event))
        if origin is None:
            around = cpu.around
            around.event, around.in_l2 = event, cpu.in_l2
            origin = origin_of(around) if cpu.probed else origin_by_tracepoints(around)
        seen = self.rules.get(id(origin))
        if seen is None:
            seen = self.rules[id(origin)] = Rule(
                event=origin.event,
                situation=origin.situation,
                kernel=self._function(origin),
                rule=origin.rule,
                first=self.number,
            )
        seen.count += 1
        return origin

    def _function(self, origin: Origin) -> str:
        """The kernel function, by the name that it has in this version and on this CPU."""
        return function_of_vendor(function_at(origin.kernel, self.version), self.vmx, self.ept_violations, "npf" in self.exits)

    def pages(self, vm: int) -> Pages:
        if vm not in self.pages_of:
            self.pages_of[vm] = Pages(self.found)
        return self.pages_of[vm]

    def answers(self, vm: int) -> Answers:
        return self.answers_of.setdefault(vm, Answers())

    def found(self, number: int, what: str) -> None:
        self.anomaly_count += 1
        if len(self.anomalies) < SHOWN:
            self.anomalies.append(Anomaly(number, self.line, what))

    def is_of_ept(self, code: int) -> bool:
        """It is no error code, but an exit qualification."""
        return self.ept_violations or is_qualification(code)

    def begin_fault(self, cpu: Cpu, address: int, code: int, told: bool) -> None:
        self.end_fault(cpu)
        reserved = code > 0 and bool(code & RESERVED) and not self.is_of_ept(code)
        cpu.fault = Fault(self.number, self.line, address, code, told, reserved=reserved)

    def end_fault(self, cpu: Cpu, cut: bool = False) -> None:
        """The fault is over: it is counted, and its numbers kept if it is one of the first."""
        fault, cpu.fault = cpu.fault, None
        if fault is None or not (fault.told or fault.events):
            return
        fault.cut = cut
        self.faults += 1
        cpu.faults += 1
        key = fault.outcome, fault.path
        seen = self.paths.get(key)
        if seen is not None:
            seen.count += 1
        elif len(self.paths) < MOST_PATHS:
            steps = [
                Step(number, to_text(event), self._function(origin))
                for number, event, origin in fault.steps[: MOST_STEPS if len(self.paths) < SHOWN else 0]
            ]
            self.paths[key] = Path(outcome=fault.outcome, path=fault.path, count=1, first=fault.number, steps=steps)
        if len(self.shown) < SHOWN:
            self.shown.append(_shown(fault, self.is_of_ept(fault.code)))
        self.answers(self.place[0]).fault(fault)


def _shown(fault: Fault, ept: bool) -> FaultSeen:
    access = "" if fault.code < 0 else access_of_ept(fault.code) if ept else access_of(fault.code)
    return FaultSeen(
        event=fault.number, line=fault.line, address=Hex(fault.address), error_code=None if fault.code < 0 else Hex(fault.code),
        access=access, path=fault.path, outcome=fault.outcome, events=fault.events,
    )  # fmt: skip
