# SPDX-License-Identifier: GPL-2.0-only
"""What stands around the engine: the judges, replay, and how long one waits for a command."""

from __future__ import annotations

import resource
import subprocess
import sys

from rows import Row, Rows, timed

from shadowmmu.captures.find import find_all
from shadowmmu.check.fuzz import fuzz
from shadowmmu.check.replay.replay import Replay

OPERATIONS = 6_000
SETS = ("shadow", "nested", "p57")


def judges() -> Rows:
    def run(audit_every: int) -> None:
        report = fuzz(seed=900, operations=OPERATIONS, audit_every=audit_every)
        if not report.ok:
            raise RuntimeError(f"the fuzz found something: {report.failure}")

    every, rarely = OPERATIONS / timed(lambda: run(1)), OPERATIONS / timed(lambda: run(OPERATIONS))
    yield Row("around", "random operations, oracle and an audit after each", every, "operations/s", "without the audits", rarely)


def replays() -> Rows:
    captures = [found.load() for found in find_all(SETS, None)]
    events = sum(len(capture.events) for capture in captures)

    def run(roots: str) -> None:
        for capture in captures:
            if not Replay(capture, roots).run().ok:
                raise RuntimeError("a capture diverged")

    legacy, special = (events / timed(lambda roots=roots: run(roots)) for roots in ("legacy", "special"))  # type: ignore[misc]
    yield Row("around", f"replay of {', '.join(SETS)} on legacy roots", legacy, "events/s")
    yield Row("around", "the same on special roots, with a second VM beside it", special, "events/s", "legacy roots", legacy)


def child(*arguments: str) -> float:
    """CPU milliseconds of a process, its start included."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    costs = []
    for _ in range(5):
        before = spent()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        costs.append(spent() - before)
    return min(costs) * 1e3


def start_up() -> Rows:
    bare = child("-c", "pass")
    for title, arguments in (
        ("import shadowmmu", ("-c", "import shadowmmu")),
        ("shadowmmu --version", ("-m", "shadowmmu", "--version")),
        ("shadowmmu guests", ("-m", "shadowmmu", "guests")),
    ):
        yield Row("around", title, child(*arguments), "ms", "Python alone", bare)


def rows() -> Rows:
    yield from judges()
    yield from replays()
    yield from start_up()
