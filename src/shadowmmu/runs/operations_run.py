# SPDX-License-Identifier: GPL-2.0-only
"""A recorded list of operations on any root design and kernel, as figures: its steps are the operations, judged as the fuzz judges them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from zlib import crc32

from shadowmmu.border.files import parsing, read_file
from shadowmmu.border.limits import OPERATIONS
from shadowmmu.check.fuzz import Failure, Kind, Op, Report, Setup, describe, read_story
from shadowmmu.check.fuzz.search import Episode
from shadowmmu.check.fuzz.story import TITLE
from shadowmmu.errors import BadInput
from shadowmmu.look.chain import top_chain, whose_root
from shadowmmu.look.picture import count_tables
from shadowmmu.runs.costs import COSTS
from shadowmmu.runs.measured import Measured, Steps, Told, event_name
from shadowmmu.trace.engine import from_record

REMEDY = "give a file that `shadowmmu fuzz --save` wrote"
OPERATION, DONE = "operation", "done"
_FAULTS = ("injected", "faulted in L2")
_HOW = ("completed", "emulated", "not reached", "some", "none")
"""How an access was done, and what a dirty log has, is the host's business."""


def is_list(path: Path) -> bool:
    """Whether a file is such a list, by how it begins."""
    try:
        return read_file(path, OPERATIONS, str(path), REMEDY).startswith(TITLE.encode())
    except BadInput:
        return False


def read_list(path: Path) -> tuple[Setup, list[Op]]:
    """What `shadowmmu fuzz --save` wrote, or somebody by hand. Raises BadInput."""
    text = read_file(path, OPERATIONS, str(path), REMEDY).decode(errors="replace")
    with parsing(str(path), REMEDY):
        return read_story(text)


class OperationsRun:
    """One run. `wanted`: the operation whose events are kept, with which it ends."""

    def __init__(self, setup: Setup, operations: list[Op], wanted: int = 0) -> None:
        self.report, self.steps = Report(), Steps(wanted)
        self.operations = operations[:wanted] if wanted else operations
        self.episode = Episode(setup, self.report)
        self.events: Counter[str] = Counter()
        self.sees: Counter[str] = Counter()
        self.chains: dict[str, str] = {}

    def run(self) -> Measured:
        vm = self.episode.guest.vm
        vm.start_trace()
        for number, op in enumerate(self.operations, 1):
            outcome = self.episode.step(op)
            self._note(number, op, outcome)
            if outcome is None:
                break
        return self._told() if self.report.failure is None else self._violated(self.report.failure)

    def kept(self) -> list[Told]:
        """What the MMU told in the operation that was wanted."""
        self.run()
        return self.steps.kept

    def _told(self) -> Measured:
        vm = self.episode.guest.vm
        counters = vm.counters()
        return Measured(
            unit=OPERATION, verdict=DONE, guest_sees=dict(sorted(self.sees.items())), costs=_costs(counters, self.events),
            counters=counters, events=dict(self.events), tables=count_tables(vm.shadow_pages()), rules=list(self.steps.rules.values()),
            chains=self.chains, steps=self.steps.steps,
        )  # fmt: skip

    def _violated(self, failure: Failure) -> Measured:
        """It ends there: its figures are not those of the whole list."""
        number, what = len(failure.operations), failure.message.partition(": ")[2]
        verdict = f"violated by operation {number}"
        return Measured(unit=OPERATION, verdict=verdict, violation=what, violated=number, chains=self.chains, steps=self.steps.steps)

    def _note(self, number: int, op: Op, outcome: str | None) -> None:
        vm, seen = self.episode.guest.vm, _visible(outcome)
        events = [from_record(record) for record in vm.records()]
        self.events.update(map(event_name, events))
        self.sees[f"{Kind(op.kind).name.lower()} {seen}"] += 1
        self.steps.add(vm, number, describe(op), crc32(seen.encode()), events)
        vcpu = vm.vcpus[op.vcpu]
        for mmu in (mmu for mmu in vcpu.mmus if mmu.in_use and vcpu.root is not None):
            whose = whose_root(vcpu, mmu)
            self.chains[whose] = max(self.chains.get(whose, ""), top_chain(vm, mmu), key=len)


def _visible(outcome: str | None) -> str:
    """What the guest can tell of an outcome; None: a violation."""
    if outcome is None:
        return "violated"
    told = outcome.partition(" after ")[0]
    fault = next((fault for fault in _FAULTS if fault in told), None)
    return fault or (DONE if any(how in told for how in _HOW) else told)


def _costs(counters: dict[str, int], events: dict[str, int]) -> dict[str, int]:
    """Those that need no exits to be counted."""
    told = {cost.name: counters.get(cost.count, events.get(cost.count, 0)) for cost in COSTS if isinstance(cost.count, str)}
    return {"page fault exits": events.get("mmu_page_fault", 0)} | told
