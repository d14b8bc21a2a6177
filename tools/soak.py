# SPDX-License-Identifier: GPL-2.0-only
"""Random operations on the engine as it is, as many of each paging mode on each root design and kernel: all must be clean.

A field of that grid is a run of `shadowmmu fuzz` with seeds of its own; within it hosts, CPUIDs, memslots and all else are drawn. One
more mode is all of them, among which a guest changes. What has ended well is kept in build/soak by the hash of the judges and the
engine: a run that is stopped goes on where it was.

Examples: python tools/soak.py
          python tools/soak.py --each 1000000 --write
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import cyclopts

from shadowmmu.check.bugs.hunt import judges_hash
from shadowmmu.check.fuzz import MODES, Setup, fuzz_apart
from shadowmmu.engine.face.kernels import KERNELS
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.runs.fuzz_report import fuzz_report

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "soak.md"
KEPT = ROOT / "build" / "soak"
BEGIN, END = "<!-- drawn by tools/soak.py -->", "<!-- to here -->"
ALL = "all of them"
SEEDS_APART = 1_000_000
"""More than a field has episodes: no two do the same."""


class Field(NamedTuple):
    """One field of the grid."""

    mode: str
    roots: str
    kernel: str

    @property
    def modes(self) -> tuple[str, ...]:
        return MODES if self.mode == ALL else (self.mode,)


class Done(NamedTuple):
    """A field that was clean. `excused`: how often the judges left something to Linux, or could not have seen it."""

    operations: int
    virtual_machines: int
    cpu_seconds: float
    excused: int


def grid() -> Iterator[Field]:
    """All fields, those of a mode together."""
    return (Field(mode, roots, kernel) for mode in (*MODES, ALL) for roots in ROOT_DESIGNS for kernel in KERNELS)


def engine_hash() -> str:
    """Of what is judged."""
    files = sorted(path for end in ("py", "pxd") for path in (ROOT / "src" / "shadowmmu" / "engine").rglob(f"*.{end}"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


class Kept:
    """The fields that have ended well, in a file: of the same judges, engine, seed and length."""

    def __init__(self, seed: int, each: int, place: Path = KEPT) -> None:
        self.file = place / f"{judges_hash()}-{engine_hash()}-{seed}-{each}.json"
        self.done = {Field(*row[:3]): Done(*row[3:]) for row in json.loads(self.file.read_text())} if self.file.exists() else {}

    def add(self, field: Field, done: Done) -> None:
        self.done[field] = done
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps([[*field, *done] for field, done in self.done.items()]))


def run(field: Field, seed: int, each: int, jobs: int) -> Done | None:
    """Do the operations of a field. None: there was a violation, which is told."""
    before = _cpu()
    report = fuzz_apart(Setup(seed, field.roots, field.modes, kernel=field.kernel), each, jobs=jobs)
    if report.failure is not None:
        print(f"{', '.join(field)}: {report.failure.message}\n  {report.failure.command}", flush=True)
        return None
    return Done(report.operations, report.episodes, max(round(_cpu() - before, 2), 0.01), sum(fuzz_report(report).excused.values()))


def _cpu() -> float:
    """CPU seconds of this process and of those that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def table(done: dict[Field, Done], each: int, seed: int) -> Iterator[str]:
    """What the page shows."""
    whole, cpu = sum(field.operations for field in done.values()), sum(field.cpu_seconds for field in done.values())
    yield f"{whole:,} operations on {sum(field.virtual_machines for field in done.values()):,} virtual machines, no violation; judges"
    yield f"{judges_hash()}, engine {engine_hash()}, first seed {seed}, {datetime.now(UTC):%Y-%m-%d}, {cpu / 3600:.1f} CPU hours,"
    yield f"{whole / cpu:,.0f} operations a CPU second. {each:,} in each field:"
    yield from ("", "| modes | root designs | kernels | operations | excused | a CPU second |", "|---|---|---|---|---|---|")
    for mode in (*MODES, ALL):
        row = [field for key, field in done.items() if key.mode == mode]
        count, excused = sum(field.operations for field in row), sum(field.excused for field in row)
        speed = count / (sum(field.cpu_seconds for field in row) or 1)
        yield f"| {mode} | {', '.join(ROOT_DESIGNS)} | {', '.join(KERNELS)} | {count:,} | {excused:,} | {speed:,.0f} |"


def with_table(page: str, lines: Iterator[str]) -> str:
    head, tail = page.split(BEGIN)[0], page.split(END)[1]
    return "\n".join([f"{head}{BEGIN}", *lines, f"{END}{tail}"])


def main(
    *, each: int = 40_000, seed: int = 0, jobs: int = os.cpu_count() or 1, write: Annotated[bool, cyclopts.Parameter(negative="")] = False
) -> int:
    """Do random operations in every field of the grid; exit code 1 if one was violated.

    Parameters
    ----------
    each
        How many operations in each field.
    seed
        Where the random numbers of the first field begin.
    jobs
        In how many processes.
    write
        Put the table into docs/soak.md.
    """
    fields, kept, violated, start = list(grid()), Kept(seed, each), 0, time.monotonic()
    for number, field in enumerate(fields):
        if field not in kept.done:
            done = run(field, seed + number * SEEDS_APART, each, jobs)
            if done is None:
                violated += 1
                continue
            kept.add(field, done)
            print(f"{number + 1} of {len(fields)}: {', '.join(field)}, {done.operations / done.cpu_seconds:,.0f} a CPU second", flush=True)
    if violated:
        print(f"✘ violations in {violated} of {len(fields)} fields")
        return 1
    whole = sum(done.operations for done in kept.done.values())
    print(f"✔ no violation in {whole:,} operations, {each:,} in each of {len(fields)} fields, {time.monotonic() - start:,.0f} s")
    if write:
        PAGE.write_text(with_table(PAGE.read_text(), table(kept.done, each, seed)))
    return 0


if __name__ == "__main__":
    sys.exit(cyclopts.run(main))
