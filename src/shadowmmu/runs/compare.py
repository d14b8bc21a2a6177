"""One guest on both root designs: what must be equal, what differs, and why it does. Data only."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from typing import NamedTuple

import msgspec

from shadowmmu.engine.arena.events import Event
from shadowmmu.look.chain import top_chain, whose_root
from shadowmmu.machine.loader import Guest
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.seam import Exit, ExitKind
from shadowmmu.runs.guest_run import GuestRun, Roots, RunReport

ROOT = "A special root is itself a shadow page, made and freed with each root; a legacy root is a bare table."
EMPTY = (
    "A special root starts empty: the first access below each of its entries faults, finds the level-2 page again and "
    "links it. A legacy root has its level-2 pages from the moment it is loaded."
)
TOUCHED = (
    "A legacy root gets a level-2 page for every PDPTE at every load, used or not; below a special root there are only "
    "those that were touched: fewer tables are shadowed, and fewer pages zapped when the guest writes its tables."
)
HELD = (
    "A legacy level-2 page is held by its root: when it is zapped, the root is obsolete and all of it is loaded anew. "
    "A special root loses one entry, and the page comes back only if it is used; till then stores to its table are not traced."
)
FLUSHES = (
    "They flush at different times: a fault that only links a level-2 page again writes its leaf again too, which may flush; "
    "a legacy root that is loaded anew flushes everything."
)
FOLLOWS = "Follows from the above: where other pages are zapped, others are synced and made again."

_FAULTS = (
    "page fault exits", "nested page fault exits", "pf_taken", "pf_fixed", "pf_spurious", "kvm_mmu_pagetable_walk",
    "kvm_mmu_paging_element", "kvm_mmu_set_spte", "kvm_mmu_spte_requested",
)  # fmt: skip
_PAGES = (
    "kvm_mmu_get_page l2", "mmu_cache_miss", "n_used_mmu_pages", "indirect_shadow_pages", "shadow pages l2",
    "shadow pages l2 direct", "host memory touched", "mmu_shadow_zapped", "mmu_flooded", "mmu_recycled", "zap_oldest",
)  # fmt: skip
_LOADS = ("mmu_load", "free_roots", "sync_roots", "mmu_pte_write", "mmu_pde_zapped", "pf_emulate", "instructions emulated")


FAULT_EXITS = (ExitKind.PAGE_FAULT.value, ExitKind.NESTED_PAGE_FAULT.value)
"""Exits of the host's own: how many there are is no business of the guest's."""


class Reason(NamedTuple):
    """Why figures with these names are higher in the run on `more` roots ("": or lower)."""

    why: str
    more: str
    names: tuple[str, ...]


REASONS = (
    Reason(ROOT, "special", ("special_allocated", "special_freed")),
    Reason(EMPTY, "special", _FAULTS),
    Reason(TOUCHED, "legacy", _PAGES),
    Reason(HELD, "legacy", (*_FAULTS, *_LOADS)),
    Reason(FLUSHES, "", ("tlb_flush", "remote_tlb_flush")),
)
ORDER = (*(reason.why for reason in REASONS), FOLLOWS)
_SAID_TWICE = {
    "mmu_page_fault", "mmu_page_fault_ret", "special_alloc", "special_free", "kvm_mmu_prepare_zap_page", "pte_write",
    "remote_tlb_flush_requests", "load_pgd", "kvm_mmu_walker_error", "n_max_mmu_pages",
}  # fmt: skip
"""Events and counters that say what a counter or another event says already, or are settings."""


class Figure(msgspec.Struct, kw_only=True):
    """One thing counted in both runs; `why` they differ, if they do."""

    name: str
    special: int
    legacy: int
    why: str = ""


class Chain(msgspec.Struct, kw_only=True):
    """The top of the roots of one sort, as far down as a run saw it: special, bare and passthrough tables, then the first other."""

    whose: str
    special: str
    legacy: str


class Comparison(msgspec.Struct, kw_only=True):
    """`guest_sees` must be equal: `divergences` are those that are not, `first_line` where the output parts.

    `verdicts`: how the runs on special and on legacy roots ended; `broke`: the commands that lead to where the CPU or
    the engine could not go on, if it came to that. `chains`: of each sort of root that the guest, or an L2 of it, had.
    """

    guest: str
    broke: list[str]
    verdicts: tuple[str, str]
    chains: list[Chain]
    guest_sees: list[Figure]
    divergences: list[Figure]
    first_line: tuple[str, str] | None
    equal: list[Figure]
    differs: list[Figure]

    @property
    def alike(self) -> bool:
        """The guest cannot tell the designs apart, and both came to their end."""
        return self.verdicts[0] == self.verdicts[1] and not (self.broke or self.divergences or self.first_line)


def compare_designs(guest: Guest, named: str) -> Comparison:
    """Run the guest on both."""
    on_special, on_legacy = _Watch(), _Watch()
    special, legacy = on_special.run(guest, named, "special"), on_legacy.run(guest, named, "legacy")
    seen = _figures(_guest_sees(special), _guest_sees(legacy))
    work = _figures(_work(special, on_special.events), _work(legacy, on_legacy.events))
    sorts = sorted(on_special.chains.keys() | on_legacy.chains.keys())
    differs = [figure for figure in work if figure.special != figure.legacy]
    for figure in differs:
        figure.why = _reason(figure)
    return Comparison(
        guest=guest.name,
        broke=[report.reproduce for report in (special, legacy) if report.broke],
        verdicts=(_verdict(special), _verdict(legacy)),
        chains=[Chain(whose=whose, special=on_special.chains.get(whose, ""), legacy=on_legacy.chains.get(whose, "")) for whose in sorts],
        guest_sees=[figure for figure in seen if figure.special == figure.legacy],
        divergences=[figure for figure in seen if figure.special != figure.legacy],
        first_line=_first_difference(_output(special), _output(legacy)),
        equal=[figure for figure in work if figure.special == figure.legacy],
        differs=differs,
    )


class _Watch:
    """What is noted of one run besides its report: how often the engine told of each kind of event, and the chains of roots."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.chains: dict[str, str] = {}

    def run(self, guest: Guest, named: str, roots: Roots) -> RunReport:
        run = GuestRun(guest, named, roots=roots, on_exit=self.on_exit)
        run.machine.vm.start_trace()
        return run.run()

    def on_exit(self, machine: Machine, exit_: Exit) -> None:
        for record in machine.vm.records():
            self.events[_event_name(record)] += 1
        for vcpu in machine.vm.vcpus:
            if exit_.kind.value in FAULT_EXITS and vcpu.root is not None:
                mmu = next(mmu for mmu in vcpu.mmus if mmu.in_use)
                whose = whose_root(vcpu, mmu)
                self.chains[whose] = max(self.chains.get(whose, ""), top_chain(machine.vm, mmu), key=len)


def _event_name(record: tuple[int, ...]) -> str:
    """The kernel's name; of pages asked for, with their level."""
    name: str = Event(record[0]).name.lower()
    return f"{name} l{record[3] & 0xF}" if record[0] == Event.KVM_MMU_GET_PAGE else name


def _verdict(report: RunReport) -> str:
    return report.broke if report.result is None else report.result.reason.value


def _guest_sees(report: RunReport) -> dict[str, int]:
    """What a guest can tell, or causes by itself; for a hypervisor that includes the exits of its L2 that it is given."""
    result = report.result
    if result is None:
        return {}
    seen = {"lines of output": len(result.output.splitlines())}
    seen.update({f"exits: {kind}": count for kind, count in sorted(result.exits.items()) if kind not in FAULT_EXITS})
    seen.update({f"exits of L2 to L1: {name}": count for name, count in sorted(result.reflected.items())})
    seen.update({f"delivered: {name}": count for name, count in sorted(result.injected.items())})
    return seen


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


def _figures(special: dict[str, int], legacy: dict[str, int]) -> list[Figure]:
    return [Figure(name=name, special=special.get(name, 0), legacy=legacy.get(name, 0)) for name in special | legacy]


def _reason(figure: Figure) -> str:
    more = "special" if figure.special > figure.legacy else "legacy"
    return next((why for why, side, names in REASONS if figure.name in names and side in ("", more)), FOLLOWS)


def _output(report: RunReport) -> list[str]:
    return report.result.output.splitlines() if report.result is not None else []


def _first_difference(special: list[str], legacy: list[str]) -> tuple[str, str] | None:
    return next(((one, other) for one, other in zip_longest(special, legacy, fillvalue="(nothing)") if one != other), None)
