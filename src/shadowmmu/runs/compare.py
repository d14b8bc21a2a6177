# SPDX-License-Identifier: GPL-2.0-only
"""One guest, or list of operations, on several root designs: what must be equal, what differs, and why it does. Data only."""

from __future__ import annotations

from itertools import zip_longest

import msgspec

from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.machine.loader import Guest
from shadowmmu.runs.guest_run import RunReport
from shadowmmu.runs.measured import FAULT_EXITS, Measured, Watch, guest_sees, output_of, verdict_of

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


class DesignRun(msgspec.Struct, kw_only=True):
    """One run on one design. `sees`: what the guest can tell; `work`: what the MMU did; `again`: the command, if it broke off."""

    verdict: str
    sees: dict[str, int]
    work: dict[str, int]
    output: list[str] = []
    chains: dict[str, str] = {}
    again: str = ""


def compare_designs(name: str, runs: dict[str, DesignRun]) -> Comparison:
    """What was run on each of the designs."""
    whole = all(run.sees for run in runs.values())
    seen = figures_of({design: run.sees for design, run in runs.items()}) if whole else []
    work = figures_of({design: run.work for design, run in runs.items()}) if whole else []
    sorts = sorted(set[str]().union(*(run.chains for run in runs.values())))
    differs = [figure for figure in work if not figure.equal]
    for figure in differs:
        figure.why = _reason(figure)
    return Comparison(
        guest=name,
        broke=[run.again for run in runs.values() if run.again],
        verdicts={design: run.verdict for design, run in runs.items()},
        chains=[Chain(whose=whose, tops={design: run.chains.get(whose, "") for design, run in runs.items()}) for whose in sorts],
        guest_sees=[figure for figure in seen if figure.equal],
        divergences=[figure for figure in seen if not figure.equal],
        first_line=first_difference({design: run.output for design, run in runs.items()}),
        equal=[figure for figure in work if figure.equal],
        differs=differs,
    )


def run_guest(guest: Guest, named: str, design: str, kernel: str) -> DesignRun:
    watch = Watch()
    report = watch.run(guest, named, design, kernel)
    return DesignRun(
        verdict=verdict_of(report), sees=guest_sees(report), output=output_of(report), chains=watch.chains,
        work=_exits(report) | _work(report.counters, watch.events, report.tables), again=report.reproduce if report.broke else "",
    )  # fmt: skip


def run_list(told: Measured) -> DesignRun:
    """Of a list of operations."""
    return DesignRun(
        verdict=told.verdict, sees=told.guest_sees, chains=told.chains, work=_work(told.counters, told.events, told.tables),
        again=told.reproduce if told.broke or told.violation else "",
    )  # fmt: skip


def _exits(report: RunReport) -> dict[str, int]:
    result = report.result
    if result is None:
        return {}
    work = {f"{kind} exits": result.exits[kind] for kind in FAULT_EXITS if kind in result.exits}
    return work | {"instructions emulated": result.emulated, "host memory touched": result.host_memory}


def _work(counters: dict[str, int], events: dict[str, int], tables: dict[str, int]) -> dict[str, int]:
    """What the MMU did for it."""
    work = {name: count for name, count in counters.items() if name not in _SAID_TWICE}
    work.update({name: count for name, count in sorted(events.items()) if name not in _SAID_TWICE and name not in work})
    return work | {f"shadow pages {name}": count for name, count in tables.items() if "special" not in name}


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
