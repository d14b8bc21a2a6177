# SPDX-License-Identifier: GPL-2.0-only
"""The whole: events in, an `Explanation` out. What is remembered of them has bounds, whatever the trace's length and whatever is in it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from shadowmmu.border.limits import KINDS, REMEMBERED, VCPUS, VMS
from shadowmmu.captures.markers import CREATES_VM
from shadowmmu.engine.arena.role import Role
from shadowmmu.look.data import Hex
from shadowmmu.runs.explained.answers import Answers
from shadowmmu.runs.explained.commonest import keep_commonest
from shadowmmu.runs.explained.explanation import Anomaly, Explanation, FaultSeen, Path, RoleSeen, Rule, Step
from shadowmmu.runs.explained.faults import MOST_STEPS, Fault
from shadowmmu.runs.explained.order import RESERVED, Order
from shadowmmu.runs.explained.pages import Pages
from shadowmmu.runs.explained.table_tree import MOST_TREES, trees_of
from shadowmmu.runs.explained.vms import Threads
from shadowmmu.runs.explained.walks import Walks
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.ftrace.access import access_of, access_of_ept
from shadowmmu.trace.ftrace.reader import Broken, Told
from shadowmmu.trace.layouts import describe
from shadowmmu.trace.origins import ALWAYS, origin_of
from shadowmmu.trace.origins.later import Version, function_at
from shadowmmu.trace.origins.origin import WINDOW, Around, Origin
from shadowmmu.trace.origins.tracepoints import origin_by_tracepoints
from shadowmmu.trace.text import to_text

SHOWN = 10
"""Anomalies and faults that are kept, the first of them; the others are counted."""
WEIGHED = 1 << 12
"""After so many events it is looked how much is remembered."""
UNORDERED = "lines were counted: their order is lost, so nothing is said of what follows what"
FORGOTTEN = f"more than {REMEMBERED:,} pages, tables and addresses are in it: now and then all were forgotten, as at a gap"
CROWDED = f"more than {VCPUS:,} vCPUs or {VMS} VMs are in it: those met last are counted, and not followed"
RARE = f"more than {KINDS:,} kinds of events, exits or roots are in it: the rarest are not told"


class _Cpu:
    """What is under way on one vCPU."""

    def __init__(self) -> None:
        self.before: deque[AnyEvent] = deque(maxlen=WINDOW)
        self.walks = Walks()
        self.order = Order(self.walks)
        self.fault: Fault | None = None
        self.probed = False
        self.root = "no root told"
        self.in_l2: bool | None = None
        self.faults = 0


class Explainer:
    """Takes events one by one; `explanation` may be asked for at any time. `version`: of the kernel by which functions are named."""

    def __init__(self, version: Version, nested_paging: bool = True) -> None:
        self.version = version
        self.number = self.line = self.lost = self.gaps = self.unread = self.faults = self.anomaly_count = 0
        self.first_unread = ""
        self.names: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self.paths: dict[tuple[str, str], Path] = {}
        self.shown: list[FaultSeen] = []
        self.rules: dict[int, Rule] = {}
        """By the row of the table of origins, which is there for good."""
        self.syncs: Counter[str] = Counter()
        self.anomalies: list[Anomaly] = []
        self.notes: dict[str, None] = {}
        self.ordered = True
        self.nested_paging = nested_paging
        self.threads = Threads()
        self._cpus: dict[tuple[int, int], _Cpu] = {}
        self._pages: dict[int, Pages] = {}
        self._answers: dict[int, Answers] = {}
        self._times: dict[int, float] = {}
        self._place = (0, 0)
        self._vcpu = 0
        self._broken = False

    def read(self, stream: Iterable[Told | Broken]) -> None:
        for told in stream:
            if isinstance(told, Broken):
                self._gap(told)
            else:
                self.told(told)

    def told(self, told: Told) -> None:
        count = told.front.count
        self.number += 1
        self._broken = False
        if not self.number % WEIGHED:
            self._weigh()
        self.line = told.line
        self.names[told.name] += count
        if told.name == "kvm_exit":
            self.exits[_reason(told.text)] += count
        if told.event is None:
            self.unread += 1
            self.first_unread = self.first_unread or f"{told.name}: {told.text}"
            return
        if count > 1 and self.ordered:
            self._lose_order()
        if not self._follow(told):
            return
        self._check_time(told)
        if "role=" in told.text:
            self.pages(self._place[0]).exact = True
        self._event(told.event)

    def _follow(self, told: Told) -> bool:
        """Find the vCPU of an event; False: there were too many before it."""
        assert told.event is not None
        place = self.threads.place(told) if told.front.pid else (0, self._vcpu_of(told.event))
        if place is None or (place not in self._cpus and len(self._cpus) >= VCPUS):
            self.notes[CROWDED] = None
            return False
        self._place = place
        return True

    def _weigh(self) -> None:
        """Keep what is remembered within its bounds."""
        for counts in (self.names, self.exits, self.syncs):
            if keep_commonest(counts, KINDS):
                self.notes[RARE] = None
        held: list[Pages | Answers | Walks] = [*self._pages.values(), *self._answers.values(), *(cpu.walks for cpu in self._cpus.values())]
        if sum(map(len, held)) > REMEMBERED:
            self.notes[FORGOTTEN] = None
            for one in held:
                one.thin()

    def _vcpu_of(self, event: AnyEvent) -> int:
        """Without threads: what an event itself says, or the one that went in or out last."""
        if isinstance(event, _SAY):
            self._vcpu = event.vcpu
        return event.vcpu if event.vcpu > 0 else self._vcpu

    # --- one event

    def _event(self, event: AnyEvent) -> None:
        vm, _ = self._place
        cpu = self._cpus.get(self._place)
        if cpu is None:
            cpu = self._cpus[self._place] = _Cpu()
        kind = type(event)
        if self.ordered:
            starts = _STARTS.get(kind)
            if starts is not None:
                starts(self, cpu, event)
            if cpu.fault is not None:
                cpu.fault.take(event)
            missing = cpu.order.take(event)
            if missing:
                self._found(self.number, missing)
            follow = _FOLLOWS.get(kind)
            if follow is not None:
                follow(self, vm, cpu, event)
            origin = self._rule(cpu, event)
            if cpu.fault is not None and len(cpu.fault.steps) < MOST_STEPS:
                cpu.fault.steps.append((self.number, event, origin))
        cpu.before.append(event)

    def _lose_order(self) -> None:
        """Lines were counted: one by one they tell nothing of what follows what."""
        self.ordered = False
        self.faults = self.anomaly_count = 0
        for kept in (self.paths, self.shown, self.rules, self.anomalies, self._cpus):
            kept.clear()

    def _rule(self, cpu: _Cpu, event: AnyEvent) -> Origin:
        origin = ALWAYS.get(type(event))
        if origin is None:
            around = Around(event, cpu.before, (), self.nested_paging, cpu.in_l2)
            origin = origin_of(around) if cpu.probed else origin_by_tracepoints(around)
        seen = self.rules.get(id(origin))
        if seen is None:
            seen = self.rules[id(origin)] = Rule(
                event=origin.event,
                situation=origin.situation,
                kernel=function_at(origin.kernel, self.version),
                rule=origin.rule,
                first=self.number,
            )
        seen.count += 1
        return origin

    def pages(self, vm: int) -> Pages:
        if vm not in self._pages:
            self._pages[vm] = Pages(self._found)
        return self._pages[vm]

    def answers(self, vm: int) -> Answers:
        return self._answers.setdefault(vm, Answers())

    def _found(self, number: int, what: str) -> None:
        self.anomaly_count += 1
        if len(self.anomalies) < SHOWN:
            self.anomalies.append(Anomaly(number, self.line, what))

    def _check_time(self, told: Told) -> None:
        """Of one thread time never goes back."""
        front = told.front
        if front.time < 0:
            return
        before = self._times.get(front.pid, -1.0)
        if front.time < before and self.ordered:
            self._found(self.number, f"time goes back from {before:.6f} to {front.time:.6f} in one thread: lines stand in another order")
        if len(self._times) > MOST_THREADS:
            self._times.clear()
        self._times[front.pid] = front.time

    def _gap(self, gap: Broken) -> None:
        self.lost += gap.lost
        self.gaps += 1
        if self._broken:  # since the gap before there was nothing
            return
        self._broken = True
        self._times.clear()
        for pages in self._pages.values():
            pages.forget()
        for cpu in self._cpus.values():
            self._end(cpu, cut=True)
            cpu.before.clear()
            cpu.walks.end()
            cpu.order.forget()

    # --- faults

    def _begin(self, cpu: _Cpu, address: int, code: int, told: bool) -> None:
        self._end(cpu)
        reserved = code > 0 and bool(code & RESERVED) and "EPT_VIOLATION" not in self.exits
        cpu.fault = Fault(self.number, self.line, address, code, told, reserved=reserved)

    def _end(self, cpu: _Cpu, cut: bool = False) -> None:
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
                Step(number, to_text(event), function_at(origin.kernel, self.version))
                for number, event, origin in fault.steps[: MOST_STEPS if len(self.paths) < SHOWN else 0]
            ]
            self.paths[key] = Path(outcome=fault.outcome, path=fault.path, count=1, first=fault.number, steps=steps)
        if len(self.shown) < SHOWN:
            self.shown.append(_shown(fault, "EPT_VIOLATION" in self.exits))
        self.answers(self._place[0]).fault(fault)

    def _vcpus(self) -> int:
        """Those that say so, or threads that had faults."""
        told = sum(map(len, self.threads.vms)) or sum(1 for cpu in self._cpus.values() if cpu.faults)
        return max(1, told)

    def _are_told(self) -> tuple[bool, bool]:
        """Requests, and any event of the MMU."""
        return "kvm_mmu_spte_requested" in self.names, any("mmu" in name or name == "fast_page_fault" for name in self.names)

    # --- the end

    def explanation(self) -> Explanation:
        for cpu in self._cpus.values():
            self._end(cpu, cut=True)
        notes = [*self.notes] if self.ordered else [UNORDERED, *self.notes]
        pages = list(self._pages.values())
        roles: Counter[int] = sum((one.roles for one in pages), Counter())
        made = sum((one.made for one in pages), Counter())
        return Explanation(
            events=self.number, lost=self.lost, gaps=self.gaps, unread=self.unread, first_unread=self.first_unread[:160],
            vms=max(1, len(self.threads.vms)), vcpus=self._vcpus(), notes=notes, names=dict(self.names.most_common()),
            exits=dict(self.exits.most_common()), faults=self.faults, shown=self.shown, syncs=dict(self.syncs.most_common(SHOWN)),
            roles=[RoleSeen(Hex(role), describe(role), count) for role, count in roles.most_common(SHOWN)],
            paths=sorted(self.paths.values(), key=lambda path: -path.count),
            rules=sorted(self.rules.values(), key=lambda rule: -rule.count),
            answers=[answer for one in self._answers.values() for answer in one.all(*self._are_told())],
            most_made=[f"gfn {gfn:x} {describe(role)}: made {count:,} times" for (gfn, role), count in made.most_common(5) if count > 1],
            trees=[tree for place, cpu in self._cpus.items() for tree in trees_of(cpu.walks, self.pages(place[0]))][:MOST_TREES],
            anomalies=self.anomalies, anomaly_count=self.anomaly_count,
        )  # fmt: skip


_SAY = (e.Exit, e.VmEntry, e.PageFault)
"""Kinds that always tell their vCPU."""
OUR_FIRST = "exit 1:"
"""What stands first in a trace of `shadowmmu run`."""
MOST_PATHS, MOST_THREADS = 10_000, 100_000


def _reason(text: str) -> str:
    words = text.partition("reason ")[2] or text
    return " ".join(words.partition(" rip ")[0].split())[:40]


def _shown(fault: Fault, ept: bool) -> FaultSeen:
    access = "" if fault.code < 0 else access_of_ept(fault.code) if ept else access_of(fault.code)
    return FaultSeen(
        event=fault.number, line=fault.line, address=Hex(fault.address), error_code=None if fault.code < 0 else Hex(fault.code),
        access=access, path=fault.path, outcome=fault.outcome, events=fault.events,
    )  # fmt: skip


# --- what begins and ends a fault


def _page_fault(self: Explainer, cpu: _Cpu, event: e.PageFault) -> None:
    self._begin(cpu, int(event.fault_address), int(event.error_code), True)
    if not cpu.probed:  # the rules know a fault by the MMU's entry point
        cpu.before.append(e.MmuPageFault(addr=event.fault_address, err=event.error_code))


def _mmu_page_fault(self: Explainer, cpu: _Cpu, event: e.MmuPageFault) -> None:
    cpu.probed = True
    if cpu.fault is None or cpu.fault.address != event.addr or cpu.fault.entered:
        self._begin(cpu, int(event.addr), int(event.err) & 0xFFFF_FFFF, True)
    assert cpu.fault is not None
    cpu.fault.entered = True


def _walk(self: Explainer, cpu: _Cpu, event: e.Walk) -> None:
    fault = cpu.fault
    if not cpu.probed and (fault is None or (not fault.told and (fault.sets or fault.refused >= 0 or fault.walked))):
        self._begin(cpu, int(event.addr), -1, False)


def _requested(self: Explainer, cpu: _Cpu, event: e.SpteRequested) -> None:
    """Nested paging without events of exits: a fault of a direct MMU is known by what it asks for."""
    if cpu.probed:
        return
    if cpu.fault is None or (not cpu.fault.told and cpu.fault.requested):
        self._begin(cpu, int(event.gfn) << 12, -1, False)


def _fast(self: Explainer, cpu: _Cpu, event: e.FastPageFault) -> None:
    if cpu.fault is None or cpu.fault.fast or cpu.fault.requested or (not cpu.fault.told and cpu.fault.walked):
        self._begin(cpu, int(event.cr2_or_gpa), int(event.error_code), False)


def _entry(self: Explainer, cpu: _Cpu, _: e.VmEntry) -> None:
    self._end(cpu)


_STARTS: dict[type[Any], Any] = {
    e.PageFault: _page_fault, e.MmuPageFault: _mmu_page_fault, e.Walk: _walk, e.SpteRequested: _requested, e.FastPageFault: _fast,
    e.VmEntry: _entry, e.Exit: _entry,
}  # fmt: skip

# --- what is followed, in a trace whose order is known


def _began(self: Explainer, vm: int, cpu: _Cpu, event: e.Marker) -> None:
    if event.text == CREATES_VM or event.text.startswith(OUR_FIRST):
        self._pages[vm] = Pages(self._found)
        self._pages[vm].complete = True
        cpu.order.begins()


def _got(self: Explainer, vm: int, cpu: _Cpu, event: e.GetPage) -> None:
    self.pages(vm).got(self.number, event)
    fault = cpu.fault
    if fault is not None and fault.walked == 1 and cpu.walks.top and not event.role & int(Role.GUEST_MODE):
        self.answers(vm).page(self.number, cpu.walks.top, event)


def _unsync(self: Explainer, vm: int, cpu: _Cpu, event: e.UnsyncPage) -> None:
    self.pages(vm).went_unsync(self.number, event)


def _sync(self: Explainer, vm: int, cpu: _Cpu, event: e.SyncPage) -> None:
    self.pages(vm).was_synced(self.number, event)
    self.syncs[cpu.root] += 1


def _zap(self: Explainer, vm: int, cpu: _Cpu, event: e.PrepareZapPage) -> None:
    pages = self.pages(vm)
    pages.early = vm in self.threads.early
    pages.was_zapped(self.number, event)


def _zap_all(self: Explainer, vm: int, cpu: _Cpu, event: e.ZapAllFast) -> None:
    self.pages(vm).zapped_all(self.number)


def _set(self: Explainer, vm: int, cpu: _Cpu, event: e.SetSpte) -> None:
    self.pages(vm).leaf(self.number, event)
    self.answers(vm).entry(self.number, int(event.level), int(event.gfn))


def _mark(self: Explainer, vm: int, cpu: _Cpu, event: e.MarkMmioSpte) -> None:
    self.pages(vm).marked(event)


def _tdp(self: Explainer, vm: int, cpu: _Cpu, event: e.TdpMmuSpteChanged) -> None:
    self.answers(vm).changed(self.number, event)


def _to_l2(self: Explainer, vm: int, cpu: _Cpu, event: AnyEvent) -> None:
    cpu.in_l2 = isinstance(event, e.NestedVmenter)


def _begin_walk(self: Explainer, vm: int, cpu: _Cpu, event: e.Walk) -> None:
    cpu.walks.begin(event)


def _step(self: Explainer, vm: int, cpu: _Cpu, event: e.PagingElement) -> None:
    wrong = cpu.walks.step(event)
    if wrong:
        self._found(self.number, wrong)


def _cr3(self: Explainer, vm: int, cpu: _Cpu, event: e.Cr) -> None:
    if event.rw and event.cr == 3:
        cpu.root = f"CR3 {int(event.val):x}"


def _new_pgd(self: Explainer, vm: int, cpu: _Cpu, event: e.NewPgd) -> None:
    cpu.root = f"root {int(event.pgd):x}"


def _load_pgd(self: Explainer, vm: int, cpu: _Cpu, event: e.LoadPgd) -> None:
    cpu.root = f"root at {int(event.root):x}, level {event.level}"


_FOLLOWS: dict[type[Any], Any] = {
    e.Marker: _began, e.GetPage: _got, e.UnsyncPage: _unsync, e.SyncPage: _sync, e.PrepareZapPage: _zap, e.ZapAllFast: _zap_all,
    e.MarkMmioSpte: _mark, e.TdpMmuSpteChanged: _tdp, e.NestedVmenter: _to_l2, e.NestedVmexitInject: _to_l2,
    e.SetSpte: _set, e.Walk: _begin_walk, e.PagingElement: _step, e.Cr: _cr3, e.NewPgd: _new_pgd, e.LoadPgd: _load_pgd,
}  # fmt: skip
