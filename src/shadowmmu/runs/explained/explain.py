# SPDX-License-Identifier: GPL-2.0-only
"""The whole: events in, an `Explanation` out. What is remembered of them has bounds, whatever the trace's length and whatever is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from shadowmmu.border.limits import KINDS, REMEMBERED, VCPUS, VMS
from shadowmmu.look.data import Hex
from shadowmmu.runs.explained.answers import Answers
from shadowmmu.runs.explained.commonest import keep_commonest
from shadowmmu.runs.explained.explanation import Explanation, RoleSeen
from shadowmmu.runs.explained.faults import MOST_STEPS
from shadowmmu.runs.explained.followed import SHOWN, Cpu, Followed
from shadowmmu.runs.explained.kinds import PLANS
from shadowmmu.runs.explained.pages import Pages
from shadowmmu.runs.explained.table_tree import MOST_TREES, trees_of
from shadowmmu.runs.explained.walks import Walks
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.ftrace.guess import Kernel
from shadowmmu.trace.ftrace.reader import Broken, Told
from shadowmmu.trace.layouts import describe

WEIGHED = 1 << 12
"""After so many events it is looked how much is remembered."""
UNORDERED = "lines were counted: their order is lost, so nothing is said of what follows what"
FORGOTTEN = f"more than {REMEMBERED:,} pages, tables and addresses are in it: now and then all were forgotten, as at a gap"
CROWDED = f"more than {VCPUS:,} vCPUs or {VMS} VMs are in it: those met last are counted, and not followed"
RARE = f"more than {KINDS:,} kinds of events, exits or roots are in it: the rarest are not told"


class Explainer(Followed):
    """Takes events one by one; `explanation` may be asked for at any time. `kernel`: whose it is, as far as that is known."""

    def __init__(self, kernel: Kernel, nested_paging: bool = True) -> None:
        super().__init__(kernel, nested_paging)
        self.lost = self.gaps = self.unread = 0
        self.first_unread = ""
        self.names: Counter[str] = Counter()
        self.notes: dict[str, None] = {}
        self.ordered = True
        self._times: dict[int, float] = {}
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
            reason = _reason(told.text)
            self.exits[reason] += count
            self._left_for(reason)
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
            self.pages(self.place[0]).exact = True
        self._event(told.event)

    def _left_for(self, reason: str) -> None:
        """What the CPU left the guest for. A number does not tell whether it was a page fault."""
        word = reason.lower()
        self.ept |= word.startswith("ept_")
        self.ept_violations |= word == "ept_violation"
        self.vmx |= reason.isupper() or word.startswith(_OLD_VMX)
        self.exit_is_no_fault = not word.startswith("exit_reason") and not any(fault in word for fault in _PAGE_FAULTS)

    def _follow(self, told: Told) -> bool:
        """Find the vCPU of an event; False: there were too many before it."""
        assert told.event is not None
        place = self.threads.place(told) if told.front.pid else (0, self._vcpu_of(told.event))
        if place is None or (place not in self.cpus and len(self.cpus) >= VCPUS):
            self.notes[CROWDED] = None
            return False
        self.place = place
        return True

    def _weigh(self) -> None:
        """Keep what is remembered within its bounds."""
        for counts in (self.names, self.exits, self.syncs):
            if keep_commonest(counts, KINDS):
                self.notes[RARE] = None
        held: list[Pages | Answers | Walks] = [
            *self.pages_of.values(),
            *self.answers_of.values(),
            *(cpu.walks for cpu in self.cpus.values()),
        ]
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
        cpu = self.cpus.get(self.place)
        if cpu is None:
            cpu = self.cpus[self.place] = Cpu(self.requests_have_gfns, self.nested_paging)
            self._is_alone(self.place[0])
        if self.ordered:
            self._in_order(cpu, event)
        cpu.before.append(event)

    def _is_alone(self, vm: int) -> None:
        """Whether the VM has one vCPU; a thread that has said none may not be one."""
        vcpus = [cpu for (place, vcpu), cpu in self.cpus.items() if place == vm and vcpu >= 0]
        for cpu in vcpus:
            cpu.order.alone = len(vcpus) == 1

    def _in_order(self, cpu: Cpu, event: AnyEvent) -> None:
        starts, changes, checked, follows = PLANS[type(event)]
        if starts is not None:
            starts(self, cpu, event)
        fault = cpu.fault
        if fault is not None:
            fault.events += 1
            if changes is not None:
                changes(fault, event)
        if checked and (missing := cpu.order.take(event)):
            self.found(self.number, missing)
        if follows is not None:
            follows(self, self.place[0], cpu, event)
        origin = self.rule_of(cpu, event)
        if fault is not None and len(fault.steps) < MOST_STEPS:
            fault.steps.append((self.number, event, origin))

    def _lose_order(self) -> None:
        """Lines were counted: one by one they tell nothing of what follows what."""
        self.ordered = False
        self.faults = self.anomaly_count = 0
        for kept in (self.paths, self.shown, self.rules, self.anomalies, self.cpus):
            kept.clear()

    def _check_time(self, told: Told) -> None:
        """Of one thread time never goes back."""
        front = told.front
        if front.time < 0:
            return
        before = self._times.get(front.pid, -1.0)
        if front.time < before and self.ordered:
            self.found(self.number, f"time goes back from {before:.6f} to {front.time:.6f} in one thread: lines stand in another order")
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
        for pages in self.pages_of.values():
            pages.forget()
        for cpu in self.cpus.values():
            self.end_fault(cpu, cut=True)
            cpu.before.clear()
            cpu.walks.end()
            cpu.order.forget()

    def _vcpus(self) -> int:
        """Those that say so, or threads that had faults."""
        told = sum(map(len, self.threads.vms)) or sum(1 for cpu in self.cpus.values() if cpu.faults)
        return max(1, told)

    def _are_told(self) -> tuple[bool, bool]:
        """Requests, and any event of the MMU."""
        return "kvm_mmu_spte_requested" in self.names, any("mmu" in name or name == "fast_page_fault" for name in self.names)

    # --- the end

    def explanation(self) -> Explanation:
        for cpu in self.cpus.values():
            self.end_fault(cpu, cut=True)
        for last in self.pages_of.values():
            if self.ordered and last.seem_over:
                last.end(self.number)
        notes = [*self.notes] if self.ordered else [UNORDERED, *self.notes]
        pages = list(self.pages_of.values())
        roles: Counter[int] = sum((one.roles for one in pages), Counter())
        made = sum((one.made for one in pages), Counter())
        return Explanation(
            events=self.number, lost=self.lost, gaps=self.gaps, unread=self.unread, first_unread=self.first_unread[:160],
            vms=max(1, len(self.threads.vms)), vcpus=self._vcpus(), notes=notes, names=dict(self.names.most_common()),
            exits=dict(self.exits.most_common()), faults=self.faults, shown=self.shown, syncs=dict(self.syncs.most_common(SHOWN)),
            roles=[RoleSeen(Hex(role), describe(role), count) for role, count in roles.most_common(SHOWN)],
            paths=sorted(self.paths.values(), key=lambda path: -path.count),
            rules=sorted(self.rules.values(), key=lambda rule: -rule.count),
            answers=[answer for one in self.answers_of.values() for answer in one.all(*self._are_told())],
            most_made=[f"gfn {gfn:x} {describe(role)}: made {count:,} times" for (gfn, role), count in made.most_common(5) if count > 1],
            trees=[tree for place, cpu in self.cpus.items() for tree in trees_of(cpu.walks, self.pages(place[0]))][:MOST_TREES],
            anomalies=self.anomalies, anomaly_count=self.anomaly_count,
        )  # fmt: skip


_SAY = (e.Exit, e.VmEntry, e.PageFault)
"""Kinds that always tell their vCPU."""
_PAGE_FAULTS = ("pf", "ept_violation", "exception")
"""In the reasons of exits that may be page faults."""
_OLD_VMX = ("exception", "ext_irq", "cr_access", "io_instruction", "ept_")
"""How VMX's reasons begin; in capitals in later kernels."""
MOST_THREADS = 100_000


def _reason(text: str) -> str:
    words = text.partition("reason ")[2] or text
    if "exit_reason=" in words:
        return f"exit_reason {words.partition('exit_reason=')[2].split()[0]}"
    return " ".join(words.partition(" rip ")[0].split())[:40]
