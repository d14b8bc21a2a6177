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

import ctypes
import statistics
from collections.abc import Callable

import twin as bench
from rows import Row, Rows, best, timed

from shadowmmu.check.audit import audit

ROUNDS = 15
PAGES = 60_000
GROUP = 8
READ, WRITE = 0, 2
Side = bench.Engine | bench.Twin
Make = Callable[[int], Side]  # of the leaf bits of the guest's tables


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


def compare(library: ctypes.CDLL, mode: bench.Mode) -> Rows:
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
    for kind in ours:
        ratios = statistics.quantiles((a / b for a, b in zip(ours[kind], theirs[kind], strict=True)), n=10)
        yield Row("faults", f"{mode.name}: {kind}", min(ours[kind]), "ns", "C twin", min(theirs[kind]), (ratios[0], ratios[8]))


def verify(library: ctypes.CDLL, mode: bench.Mode) -> None:
    """Both sides must do the same work, or the figures mean nothing."""
    for bits in (bench.FRESH, bench.USED):
        engine, other = bench.Engine(mode, PAGES, bits), bench.Twin(library, mode, PAGES, bits)
        for code, step in ((READ, GROUP), (READ, 1), (WRITE, GROUP), (WRITE, 1), (WRITE, 1)):
            engine.touch(0, PAGES // step, code, step * bench.PAGE)
            other.touch(0, PAGES // step, code, step * bench.PAGE)
            found = bench.differences(engine, other, mode.levels)
            if found:
                raise RuntimeError(f"{mode.name}: engine and twin disagree: {'; '.join(found[:3])}")
        other.close()


def warm() -> Rows:
    """What stands around the fault path, on the PAE guest with every page mapped."""
    engine = bench.Engine(bench.MODES[0], PAGES)
    engine.touch(0, PAGES, WRITE)
    calls = 20_000
    fault = engine.vcpu.page_fault

    def from_python() -> None:
        for number in range(calls):
            fault(number << 12, WRITE)

    def traced() -> float:
        cost = timed(lambda: engine.touch(0, calls, WRITE)) / calls * 1e9
        engine.vm.records()
        return cost

    quiet, python = best(lambda: engine.touch(0, calls, WRITE), calls), best(from_python, calls)
    beside = "in a compiled loop, not traced"
    yield Row("faults", "a warm translation called from Python", python, "ns", beside, quiet)
    engine.vm.start_trace(1 << 20)
    yield Row("faults", "a warm translation with the trace on", min(traced() for _ in range(5)), "ns", beside, quiet)
    engine.vm.stop_trace()
    pages = len(engine.vm.shadow_pages())
    yield Row("faults", f"an audit of {pages} shadow pages", best(lambda: audit(engine.vm)) / 1e3, "us")


def rows(library: ctypes.CDLL) -> Rows:
    for mode in bench.MODES:
        verify(library, mode)
        yield from compare(library, mode)
    yield from warm()
