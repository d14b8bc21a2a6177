# SPDX-License-Identifier: GPL-2.0-only
"""One guest on several root designs: what must be equal, what differs, and why it does. Data only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest

import msgspec

from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.machine.loader import Guest
from shadowmmu.runs.guest_run import RunReport
from shadowmmu.runs.measured import FAULT_EXITS, Watch, guest_sees, output_of, verdict_of

_FAULTS = (
    "page fault exits", "nested page fault exits", "pf_taken", "pf_fixed", "pf_spurious", "kvm_mmu_pagetable_walk",
    "kvm_mmu_paging_element", "kvm_mmu_set_spte", "kvm_mmu_spte_requested",
)  # fmt: skip
_PAGES = (
    "kvm_mmu_get_page l2", "mmu_cache_miss", "n_used_mmu_pages", "indirect_shadow_pages", "shadow pages l2",
    "shadow pages l2 direct", "host memory touched", "mmu_shadow_zapped", "mmu_flooded", "mmu_recycled", "zap_oldest",
)  # fmt: skip
_LOADS = ("mmu_load", "free_roots", "sync_roots", "mmu_pte_write", "mmu_pde_zapped", "pf_emulate", "instructions emulated")


REASONS = {
    "roots": ("special_allocated", "special_freed"),
    "faults": _FAULTS,
    "pages": _PAGES,
    "loads": (*_FAULTS, *_LOADS),
}
"""What `Design.more` gives a reason for -> figures that are the highest on that design for this reason."""
FLUSHES = (
    "They flush at different times: a fault that only links a level-2 page again writes its leaf again too, which may flush; "
    "a root that is loaded anew flushes everything."
)
FLUSH_FIGURES = ("tlb_flush", "remote_tlb_flush")
FOLLOWS = "Follows from the above: where other pages are zapped, others are synced and made again."
_SAID_TWICE = {
    "mmu_page_fault", "mmu_page_fault_ret", "special_alloc", "special_free", "kvm_mmu_prepare_zap_page", "pte_write",
    "remote_tlb_flush_requests", "load_pgd", "kvm_mmu_walker_error", "n_max_mmu_pages",
}  # fmt: skip
"""Events and counters that say what a counter or another event says already, or are settings."""


class Figure(msgspec.Struct, kw_only=True):
    """One thing counted in every run, by design; `why` the runs differ, if they do."""

    name: str
    counts: dict[str, int]
    why: str = ""

    @property
    def equal(self) -> bool:
        return len(set(self.counts.values())) == 1


class Chain(msgspec.Struct, kw_only=True):
    """The top of the roots of one sort, by design, as far down as a run saw it: special, bare and passthrough tables, then the
    first other."""

    whose: str
    tops: dict[str, str]


class Comparison(msgspec.Struct, kw_only=True):
    """`guest_sees` must be equal: `divergences` are those that are not, `first_line` where the outputs part, by design.

    `verdicts`: how the run on each design ended; `broke`: the commands that lead to where the CPU or the engine could
    not go on, if it came to that. `chains`: of each sort of root that the guest, or an L2 of it, had.
    """

    guest: str
    broke: list[str]
    verdicts: dict[str, str]
    chains: list[Chain]
    guest_sees: list[Figure]
    divergences: list[Figure]
    first_line: dict[str, str] | None
    equal: list[Figure]
    differs: list[Figure]

    @property
    def alike(self) -> bool:
        """The guest cannot tell the designs apart, and all runs came to their end."""
        return len(set(self.verdicts.values())) == 1 and not (self.broke or self.divergences or self.first_line)


def compare_designs(guest: Guest, named: str, designs: Sequence[str] = tuple(ROOT_DESIGNS), kernel: str = DEFAULT_KERNEL) -> Comparison:
    """Run the guest on each of the designs."""
    watches = {design: Watch() for design in designs}
    reports = {design: watch.run(guest, named, design, kernel) for design, watch in watches.items()}
    seen = figures_of({design: guest_sees(report) for design, report in reports.items()})
    work = figures_of({design: _work(report, watches[design].events) for design, report in reports.items()})
    sorts = sorted(set[str]().union(*(watch.chains for watch in watches.values())))
    differs = [figure for figure in work if not figure.equal]
    for figure in differs:
        figure.why = _reason(figure)
    return Comparison(
        guest=guest.name,
        broke=[report.reproduce for report in reports.values() if report.broke],
        verdicts={design: verdict_of(report) for design, report in reports.items()},
        chains=[Chain(whose=whose, tops={design: watch.chains.get(whose, "") for design, watch in watches.items()}) for whose in sorts],
        guest_sees=[figure for figure in seen if figure.equal],
        divergences=[figure for figure in seen if not figure.equal],
        first_line=first_difference({design: output_of(report) for design, report in reports.items()}),
        equal=[figure for figure in work if figure.equal],
        differs=differs,
    )


def _work(report: RunReport, events: Counter[str]) -> dict[str, int]:
    """What the MMU did for it."""
    result = report.result
    work: dict[str, int] = {}
    if result is not None:
        work = {f"{kind} exits": result.exits[kind] for kind in FAULT_EXITS if kind in result.exits}
        work["instructions emulated"] = result.emulated
        work["host memory touched"] = result.host_memory
    work.update({name: count for name, count in report.counters.items() if name not in _SAID_TWICE})
    work.update({name: count for name, count in sorted(events.items()) if name not in _SAID_TWICE and name not in work})
    work.update({f"shadow pages {name}": count for name, count in report.tables.items() if "special" not in name})
    return work


def figures_of(counted: dict[str, dict[str, int]]) -> list[Figure]:
    """`counted`: by design, then by name."""
    names = dict.fromkeys(name for counts in counted.values() for name in counts)
    return [Figure(name=name, counts={design: counts.get(name, 0) for design, counts in counted.items()}) for name in names]


def _reason(figure: Figure) -> str:
    """What the design that has the highest figure says of it."""
    if figure.name in FLUSH_FIGURES:
        return FLUSHES
    more = ROOT_DESIGNS[max(figure.counts, key=lambda design: figure.counts[design])].more
    return next((more[kind] for kind, names in REASONS.items() if figure.name in names and kind in more), FOLLOWS)


def reasons() -> list[str]:
    """All of them, in the order in which they are told."""
    told = [design.more[kind] for kind in REASONS for design in ROOT_DESIGNS.values() if kind in design.more]
    return [*dict.fromkeys(told), FLUSHES, FOLLOWS]


def first_difference(outputs: dict[str, list[str]]) -> dict[str, str] | None:
    """The first line that is not the same in all of them."""
    lines = zip_longest(*outputs.values(), fillvalue="(nothing)")
    return next((dict(zip(outputs, line, strict=True)) for line in lines if len(set(line)) > 1), None)
