# SPDX-License-Identifier: GPL-2.0-only
"""One run of a guest as figures: what the guest could see, what it cost, and how often each rule of the MMU was at work."""

from __future__ import annotations

from collections import Counter, deque

import msgspec

from shadowmmu import Vm
from shadowmmu.check.audit import audit
from shadowmmu.look.chain import top_chain, whose_root
from shadowmmu.machine.loader import Guest
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import Reason
from shadowmmu.machine.seam import Exit, ExitKind
from shadowmmu.runs.costs import costs_of
from shadowmmu.runs.event_log import EventLog
from shadowmmu.runs.guest_run import GuestRun, RunReport
from shadowmmu.trace.engine import from_record
from shadowmmu.trace.events import AnyEvent, GetPage, Marker
from shadowmmu.trace.fields import FRAME_BITS
from shadowmmu.trace.origins import origin_of
from shadowmmu.trace.origins.origin import WINDOW, Around, Origin
from shadowmmu.trace.text import to_text

FAULT_EXITS = (ExitKind.PAGE_FAULT.value, ExitKind.NESTED_PAGE_FAULT.value)
"""Exits of the host's own: how many there are is no business of the guest's."""
_KINDS = {kind: number for number, kind in enumerate(ExitKind)}


class RuleCount(msgspec.Struct, kw_only=True):
    """A rule, where it is held here and in the kernel, how often it was at work, and at which exit first."""

    event: str
    situation: str
    decider: str
    kernel: str
    rule: str
    count: int = 0
    first: int = 0


class Step(msgspec.Struct, array_like=True):
    """One exit, or operation of a list: its number, kind, and a digest of it; `events`: a digest of what the MMU told."""

    exit: int
    kind: str
    digest: int
    events: int


class Told(msgspec.Struct):
    """One event in words, and the rule behind it."""

    text: str
    rule: RuleCount


class Measured(msgspec.Struct, kw_only=True):
    """One run. `violation`: the first that was found, and `violated` the step; `broke`: what the CPU or engine could not do.
    `unit`: what its steps are."""

    verdict: str
    unit: str = "exit"
    broke: str = ""
    violation: str = ""
    violated: int = 0
    reproduce: str = ""
    output: list[str] = []
    guest_sees: dict[str, int] = {}
    costs: dict[str, int] = {}
    counters: dict[str, int] = {}
    tables: dict[str, int] = {}
    events: dict[str, int] = {}
    rules: list[RuleCount] = []
    chains: dict[str, str] = {}
    steps: list[Step] = []


class Watch:
    """What is noted of one run besides its report; `run` runs it."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.chains: dict[str, str] = {}

    def run(self, guest: Guest, named: str, roots: str, kernel: str, max_exits: int | None = None) -> RunReport:
        run = GuestRun(guest, named, roots=roots, kernel=kernel, on_exit=self.on_exit)
        run.machine.vm.start_trace()
        return run.run(max_exits)

    def on_exit(self, machine: Machine, exit_: Exit) -> None:
        events = [from_record(record) for record in machine.vm.records()]
        self.events.update(map(event_name, events))
        self.told(machine, exit_, events)
        for vcpu in machine.vm.vcpus:
            if exit_.kind.value in FAULT_EXITS and vcpu.root is not None:
                mmu = next(mmu for mmu in vcpu.mmus if mmu.in_use)
                whose = whose_root(vcpu, mmu)
                self.chains[whose] = max(self.chains.get(whose, ""), top_chain(machine.vm, mmu), key=len)

    def told(self, machine: Machine, exit_: Exit, events: list[AnyEvent]) -> None:
        """More that is to be noted."""


class Steps:
    """Counts rules and follows steps, exits or others. `wanted`: the step whose events are kept."""

    def __init__(self, wanted: int = 0) -> None:
        self.rules: dict[Origin, RuleCount] = {}
        self.steps: list[Step] = []
        self.wanted, self.kept = wanted, list[Told]()
        self._before: deque[AnyEvent] = deque(maxlen=WINDOW)

    def add(self, vm: Vm, number: int, kind: str, digest: int, events: list[AnyEvent]) -> None:
        """One more: what the MMU told in it."""
        self._before.append(Marker(text=kind))
        in_l2 = any(vcpu.guest_mode for vcpu in vm.vcpus)
        for event in events:
            origin = origin_of(Around(event, self._before, (), vm.tdp, in_l2))
            rule = self.rules.get(origin)
            if rule is None:
                rule = self.rules[origin] = _rule(origin, number)
            rule.count += 1
            self._before.append(event)
            if number == self.wanted:
                self.kept.append(Told(to_text(event), rule))
        self.steps.append(Step(number, kind, digest, hash(tuple(map(_plain, events)))))


class Measuring(Watch):
    """`steps` are exits; with `audits` each is audited until something is found. `log`: where all events go, if they are wanted."""

    def __init__(self, wanted: int = 0, audits: bool = True, log: EventLog | None = None) -> None:
        super().__init__()
        self.log = log
        self.steps = Steps(wanted)
        self.violation, self.violated = "", 0
        self._audits = audits and not wanted

    def told(self, machine: Machine, exit_: Exit, events: list[AnyEvent]) -> None:
        if self.log is not None:
            self.log.write(machine.exits, exit_, events)
        digest = hash((_KINDS[exit_.kind], exit_.number, exit_.error_code, exit_.gva))
        self.steps.add(machine.vm, machine.exits, exit_.kind.value, digest, events)
        if self._audits and not self.violation:
            found = audit(machine.vm)
            if found:
                self.violation, self.violated = str(found[0]), machine.exits


def measure(
    guest: Guest,
    named: str,
    roots: str,
    kernel: str,
    max_exits: int | None = None,
    audits: bool = True,
    log: EventLog | None = None,
) -> Measured:
    """Run the guest to its end, or to so many exits."""
    watch = Measuring(audits=audits, log=log)
    report = watch.run(guest, named, roots, kernel, max_exits)
    return Measured(
        verdict=verdict_of(report), broke=report.broke, violation=watch.violation, violated=watch.violated,
        reproduce=f"shadowmmu run {named} --roots {roots} --kernel {kernel}", output=output_of(report), guest_sees=guest_sees(report),
        costs=costs_of(report, watch.events), events=dict(watch.events), rules=list(watch.steps.rules.values()),
        chains=watch.chains, steps=watch.steps.steps,
    )  # fmt: skip


def events_of_exit(guest: Guest, named: str, roots: str, kernel: str, number: int) -> list[Told]:
    """What the MMU told at one exit; a run up to there."""
    watch = Measuring(number)
    watch.run(guest, named, roots, kernel, number)
    return watch.steps.kept


def _rule(origin: Origin, number: int) -> RuleCount:
    return RuleCount(
        event=origin.event, situation=origin.situation, decider=origin.decider, kernel=origin.kernel, rule=origin.rule, first=number
    )  # fmt: skip


def event_name(event: AnyEvent) -> str:
    """The kernel's name; of pages asked for, with their level."""
    return f"{event.name} l{int(event.role) & 0xF}" if isinstance(event, GetPage) else event.name


_LEAVES = {"spte", "old_spte", "new_spte"}


def _plain(event: AnyEvent) -> int:
    """A digest of an event without host addresses, alike in every process."""
    values = [_NUMBERS[type(event)]]
    for name in _PLAIN[type(event)]:
        value = int(getattr(event, name))
        values.append(value & ~FRAME_BITS if name in _LEAVES else value)
    return hash(tuple(values))


_NOT_PLAIN = {"spt", "sptep", "root", "pfn", "text", "ev", "fields", "insn"}
"""Fields that say where in host memory something lies, and those that are no numbers."""
_PLAIN: dict[type, tuple[str, ...]] = {
    kind: tuple(name for name in kind.__struct_fields__ if name not in _NOT_PLAIN) for kind in AnyEvent.__args__
}
_NUMBERS: dict[type, int] = {kind: number for number, kind in enumerate(AnyEvent.__args__)}


def verdict_of(report: RunReport) -> str:
    if report.result is None:
        return report.broke
    reason = report.result.reason
    return f"not ended after {report.exits:,} exits" if reason is Reason.EXIT_LIMIT else reason.value


def output_of(report: RunReport) -> list[str]:
    return report.result.output.splitlines() if report.result is not None else []


def guest_sees(report: RunReport) -> dict[str, int]:
    """What a guest can tell, or causes by itself; for a hypervisor that includes the exits of its L2 that it is given."""
    result = report.result
    if result is None:
        return {}
    seen = {"lines of output": len(result.output.splitlines())}
    seen.update({f"exits: {kind}": count for kind, count in sorted(result.exits.items()) if kind not in FAULT_EXITS})
    seen.update({f"exits of L2 to L1: {name}": count for name, count in sorted(result.reflected.items())})
    seen.update({f"delivered: {name}": count for name, count in sorted(result.injected.items())})
    return seen
