"""The engine against its C twin, in one run: faults and warm translations a second, and their ratio.

A *fault* is a write to an address whose tables are not shadowed yet or whose entry is absent: walk, A/D bits, link,
leaf, rmap, prefetch. A *warm translation* is the same address again: walk, shadow walk, and an entry found as it
should be. Both sides run the same guest and must end with the same tables and counters, or the run fails. Rounds
alternate between the two; a figure is the best round in CPU time, the ratio that of the two best.

Example: python benchmarks/run.py --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import twin as bench
from rich.console import Console
from rich.table import Table

from shadowmmu.check.audit import audit

ROUNDS = 15
PAGES = 60_000
WRITE, WARM = 2, 2


def timed(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def one_round(side: bench.Engine | bench.Twin) -> tuple[float, float]:
    """Nanoseconds of a fault and of a warm translation on a fresh guest."""
    side.touch(0, PAGES, 0)  # A bits, upper levels and leaves for reading
    fault = timed(lambda: side.touch(0, PAGES, WRITE))  # D bits, and the leaf again, writable
    side.touch(0, PAGES, WARM)  # settles entries that a neighbour's prefetch wrote
    warm = timed(lambda: side.touch(0, PAGES, WARM))
    return fault / PAGES * 1e9, warm / PAGES * 1e9


def first_round(side: bench.Engine | bench.Twin) -> float:
    """Nanoseconds of a first touch by a write."""
    return timed(lambda: side.touch(0, PAGES, WRITE)) / PAGES * 1e9


def compare(library: object, mode: bench.Mode) -> list[dict[str, object]]:
    """All rounds of one guest: a row a kind of work."""
    times: dict[str, dict[str, list[float]]] = {"first touch": {}, "fault": {}, "warm translation": {}}
    for number in range(ROUNDS):
        makers: list[tuple[str, Callable[[], bench.Engine | bench.Twin]]] = [
            ("engine", lambda: bench.Engine(mode, PAGES)),
            ("C", lambda: bench.Twin(library, mode, PAGES)),
        ]
        for name, make in makers if number % 2 else reversed(makers):
            side = make()
            times["first touch"].setdefault(name, []).append(first_round(side))
            side.close()
            side = make()
            fault, warm = one_round(side)
            times["fault"].setdefault(name, []).append(fault)
            times["warm translation"].setdefault(name, []).append(warm)
            side.close()
    rows = []
    for kind, sides in times.items():
        pairs = [ours / theirs for ours, theirs in zip(sides["engine"], sides["C"], strict=True)]
        ours, theirs = min(sides["engine"]), min(sides["C"])
        rows.append({"guest": mode.name, "work": kind, "engine_ns": ours, "c_ns": theirs, "ratio": ours / theirs,
                     "median_of_rounds": statistics.median(pairs)})  # fmt: skip
    return rows


def verify(library: object, mode: bench.Mode) -> None:
    """Both sides must do the same work, or the figures mean nothing."""
    engine, other = bench.Engine(mode, PAGES), bench.Twin(library, mode, PAGES)
    for code in (0, WRITE, WARM):
        engine.touch(0, PAGES, code)
        other.touch(0, PAGES, code)
    found = bench.differences(engine, other, mode.levels)
    if found:
        sys.exit(f"{mode.name}: engine and twin disagree: {'; '.join(found[:3])}")


def other_costs() -> dict[str, float]:
    """Nanoseconds of a fault called from Python, of one with the trace on, and of an audit."""
    engine = bench.Engine(bench.MODES[0], PAGES)
    engine.touch(0, PAGES, WRITE)
    calls = 20_000
    fault = engine.vcpu.page_fault

    def from_python() -> None:
        for number in range(calls):
            fault(number << 12, WARM)

    python = min(timed(from_python) for _ in range(3)) / calls * 1e9
    quiet = min(timed(lambda: engine.touch(0, calls, WARM)) for _ in range(3)) / calls * 1e9
    engine.vm.start_trace(1 << 20)
    traced = []
    for _ in range(3):
        traced.append(timed(lambda: engine.touch(0, calls, WARM)) / calls * 1e9)
        engine.vm.records()
    audits = timed(lambda: [audit(engine.vm) for _ in range(10)]) / 10 * 1e9
    return {"warm_ns": quiet, "warm_from_python_ns": python, "warm_traced_ns": min(traced), "audit_ns": audits,
            "audited_pages": float(len(engine.vm.shadow_pages()))}  # fmt: skip


def draw(rows: list[dict[str, object]], costs: dict[str, float]) -> None:
    table = Table(title=f"engine and C twin (-O2), {PAGES:,} pages, best of {ROUNDS} rounds, CPU time")
    for heading in ("guest", "work", "engine", "C", "engine a second", "ratio", "median"):
        table.add_column(heading, justify="left" if heading in ("guest", "work") else "right")
    for row in rows:
        ours, theirs = float(str(row["engine_ns"])), float(str(row["c_ns"]))
        table.add_row(
            str(row["guest"]), str(row["work"]), f"{ours:.0f} ns", f"{theirs:.0f} ns", f"{1e3 / ours:.2f} M",
            f"{row['ratio']:.2f}", f"{row['median_of_rounds']:.2f}",
        )  # fmt: skip
    console = Console(width=110)
    console.print(table)
    console.print(
        f"a warm translation called from Python {costs['warm_from_python_ns']:.0f} ns, with the trace on {costs['warm_traced_ns']:.0f} ns; "
        f"an audit of {costs['audited_pages']:.0f} pages {costs['audit_ns'] / 1e3:.0f} us"
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
        json.dump({"rows": rows, "other": costs}, sys.stdout, indent=2)
    else:
        draw(rows, costs)


if __name__ == "__main__":
    main()
