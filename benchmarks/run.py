# SPDX-License-Identifier: GPL-2.0-only
"""The engine against its C twin, in one run: faults and warm translations a second, and their ratio.

- *first touch*: a write to a page not mapped yet: walk, A/D bits, link, leaf, rmap. A new page table each 512.
- *group of 8*: the same in tables whose entries have A and D, one fault each eight pages: seven are prefetched.
- *write after read*: the page is mapped read-only since its D bit is clear: walk, D bit, the leaf again, writable.
- *warm translation*: the address again: walk, shadow walk, and the entry found as it should be (RET_PF_SPURIOUS).

All memory of a VM is in place before the clock starts: neither side pays there for what the other touched when it was made.
Both sides run the same guest and must end with the same tables and counters, or the run fails. Rounds alternate
between the two; a figure is the best round in CPU time, the ratio that of the two best, the spread that of the rounds.

Example: python benchmarks/run.py --json
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import twin as bench
from rich.console import Console
from rich.table import Table

from shadowmmu.check.audit import audit

ROUNDS = 15
PAGES = 60_000
GROUP = 8
READ, WRITE = 0, 2
Side = bench.Engine | bench.Twin
Make = Callable[[int], Side]  # of the leaf bits of the guest's tables


class Row(NamedTuple):
    """Nanoseconds of both sides, the ratio of their best rounds, and the ratios' median, 10th and 90th percentile."""

    guest: str
    work: str
    engine_ns: float
    c_ns: float
    ratio: float
    median: float
    low: float
    high: float


def timed(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def fresh_tables(side: Side) -> dict[str, float]:
    """Nanoseconds of a first touch by a write."""
    return {"first touch": timed(lambda: side.touch(0, PAGES, WRITE)) / PAGES * 1e9}


def used_tables(side: Side) -> dict[str, float]:
    """Nanoseconds of a fault that maps eight pages."""
    faults = PAGES // GROUP
    return {"group of 8": timed(lambda: side.touch(0, faults, WRITE, GROUP * bench.PAGE)) / faults * 1e9}


def read_tables(side: Side) -> dict[str, float]:
    """Nanoseconds of a write to a page that was read, and of what follows when nothing is left to do."""
    side.touch(0, PAGES, READ)
    write = timed(lambda: side.touch(0, PAGES, WRITE))
    side.touch(0, PAGES, WRITE)  # rewrites each leaf once more, without D: make_spte skips D where W was set before
    warm = timed(lambda: side.touch(0, PAGES, WRITE))
    return {"write after read": write / PAGES * 1e9, "warm translation": warm / PAGES * 1e9}


WORK = ((fresh_tables, bench.FRESH), (used_tables, bench.USED), (read_tables, bench.FRESH))


def one_round(make: Make, into: dict[str, list[float]]) -> None:
    """Every kind of work on a VM of its own."""
    for work, bits in WORK:
        with bench.in_place():
            side = make(bits)
        for kind, nanoseconds in work(side).items():
            into.setdefault(kind, []).append(nanoseconds)
        side.close()


def compare(library: ctypes.CDLL, mode: bench.Mode) -> list[Row]:
    """All rounds of one guest: a row a kind of work."""
    ours: dict[str, list[float]] = {}
    theirs: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        turns: list[tuple[Make, dict[str, list[float]]]] = [
            (lambda bits: bench.Engine(mode, PAGES, bits), ours),
            (lambda bits: bench.Twin(library, mode, PAGES, bits), theirs),
        ]
        for make, into in turns if number % 2 else reversed(turns):
            one_round(make, into)
    rows = []
    for kind in ours:
        ratios = statistics.quantiles((a / b for a, b in zip(ours[kind], theirs[kind], strict=True)), n=10)
        engine, c = min(ours[kind]), min(theirs[kind])
        rows.append(Row(mode.name, kind, engine, c, engine / c, ratios[4], ratios[0], ratios[8]))
    return rows


def verify(library: ctypes.CDLL, mode: bench.Mode) -> None:
    """Both sides must do the same work, or the figures mean nothing."""
    for bits in (bench.FRESH, bench.USED):
        engine, other = bench.Engine(mode, PAGES, bits), bench.Twin(library, mode, PAGES, bits)
        for code, step in ((READ, GROUP), (READ, 1), (WRITE, GROUP), (WRITE, 1), (WRITE, 1)):
            engine.touch(0, PAGES // step, code, step * bench.PAGE)
            other.touch(0, PAGES // step, code, step * bench.PAGE)
            found = bench.differences(engine, other, mode.levels)
            if found:
                sys.exit(f"{mode.name}: engine and twin disagree: {'; '.join(found[:3])}")
        other.close()


class Costs(NamedTuple):
    """Nanoseconds of a warm translation in the loop, called from Python and with the trace on, and of an audit."""

    warm_ns: float
    from_python_ns: float
    traced_ns: float
    audit_ns: float
    audited_pages: int


def other_costs() -> Costs:
    """What stands around the fault path, on the PAE guest with every page mapped."""
    engine = bench.Engine(bench.MODES[0], PAGES)
    engine.touch(0, PAGES, WRITE)
    calls, repeats = 20_000, 5
    fault = engine.vcpu.page_fault

    def from_python() -> None:
        for number in range(calls):
            fault(number << 12, WRITE)

    quiet = min(timed(lambda: engine.touch(0, calls, WRITE)) for _ in range(repeats))
    python = min(timed(from_python) for _ in range(repeats))
    engine.vm.start_trace(1 << 20)
    traced = []
    for _ in range(repeats):
        traced.append(timed(lambda: engine.touch(0, calls, WRITE)))
        engine.vm.records()
    audits = min(timed(lambda: audit(engine.vm)) for _ in range(repeats))
    each = 1e9 / calls
    return Costs(quiet * each, python * each, min(traced) * each, audits * 1e9, len(engine.vm.shadow_pages()))


def draw(rows: list[Row], costs: Costs) -> None:
    table = Table(title=f"engine and C twin (-O2), {PAGES:,} pages, best of {ROUNDS} rounds, CPU time")
    for heading in ("guest", "work", "engine", "C", "engine a second", "ratio", "median", "10-90 %"):
        table.add_column(heading, justify="left" if heading in ("guest", "work") else "right")
    for row in rows:
        table.add_row(
            row.guest, row.work, f"{row.engine_ns:.0f} ns", f"{row.c_ns:.0f} ns", f"{1e3 / row.engine_ns:.2f} M",
            f"{row.ratio:.2f}", f"{row.median:.2f}", f"{row.low:.2f}-{row.high:.2f}",
        )  # fmt: skip
    console = Console(width=120)
    console.print(table)
    console.print(
        f"a warm translation in the loop {costs.warm_ns:.0f} ns, called from Python {costs.from_python_ns:.0f} ns, "
        f"with the trace on {costs.traced_ns:.0f} ns; an audit of {costs.audited_pages} shadow pages {costs.audit_ns / 1e3:.0f} us"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    options = parser.parse_args()
    library = bench.build()
    rows = []
    for mode in bench.MODES:
        verify(library, mode)
        rows += compare(library, mode)
    costs = other_costs()
    if options.json:
        json.dump({"rows": [row._asdict() for row in rows], "other": costs._asdict()}, sys.stdout, indent=2)
    else:
        draw(rows, costs)


if __name__ == "__main__":
    main()
