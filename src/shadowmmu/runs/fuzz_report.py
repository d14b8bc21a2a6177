# SPDX-License-Identifier: GPL-2.0-only
"""What a fuzz did, as data: how often each sort of operation ended how, the engine's counters, the failure."""

from __future__ import annotations

import msgspec

from shadowmmu.check.fuzz import Failure, Report, describe

_ENDS = {"completed", "emulated", "injected", "host", "triple"}
"""First words of how an access can end; what stands before them says what sort of access it was."""


class Found(msgspec.Struct, kw_only=True):
    """A violation. `smallest`: the shortest list of operations found that leads to its like; the last one shows it."""

    message: str
    reproduce: str
    smallest: list[str] = []


class FuzzReport(msgspec.Struct, kw_only=True):
    """`coverage`: sort of operation -> how it ended -> how often."""

    operations: int
    episodes: int
    coverage: dict[str, dict[str, int]]
    counters: dict[str, int]
    failure: Found | None


def fuzz_report(report: Report, smallest: Failure | None = None) -> FuzzReport:
    failure = report.failure
    found = None
    if failure is not None:
        found = Found(message=failure.message, reproduce=failure.command)
        found.smallest = [describe(op) for op in smallest.operations] if smallest is not None else []
    return FuzzReport(
        operations=report.operations,
        episodes=report.episodes,
        coverage=_coverage(report.coverage),
        counters={name: count for name, count in sorted(report.counters.items()) if count},
        failure=found,
    )


def _coverage(counts: dict[str, int]) -> dict[str, dict[str, int]]:
    coverage: dict[str, dict[str, int]] = {}
    for name, count in sorted(counts.items()):
        words = name.split()
        cut = next((at for at in range(1, len(words)) if words[at] in _ENDS), 1)
        coverage.setdefault(" ".join(words[:cut]), {})[" ".join(words[cut:])] = count
    return coverage
