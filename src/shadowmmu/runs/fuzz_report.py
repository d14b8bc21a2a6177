# SPDX-License-Identifier: GPL-2.0-only
"""What a fuzz did, as data: how often each sort of operation ended how, the engine's counters, the failure."""

from __future__ import annotations

import msgspec

from shadowmmu.check.fuzz import Failure, Kind, Report, perform, tell
from shadowmmu.errors import BadInput
from shadowmmu.look.address import AddressPicture, follow_address

_ENDS = {"completed", "emulated", "injected", "host", "triple"}
"""First words of how an access can end; what stands before them says what sort of access it was."""
EXCUSED = (
    "a PDPTE is left out",
    "beyond the nested tables",
    "host fault",
    "no A or D, the host protects the table",
    "no PDPTEs in L2",
)
"""How an operation ends that is not judged to its end, since Linux itself does otherwise than a bare CPU (docs/kernel-quirks.md)."""


class Found(msgspec.Struct, kw_only=True):
    """A violation. `smallest`: the shortest list of operations found that leads to its like; the last one shows it.

    path    the address that this one uses, as the tables of guest and shadow have it then; None: it uses none, or the engine crashed
    """

    message: str
    reproduce: str
    smallest: list[str] = []
    path: AddressPicture | None = None


class FuzzReport(msgspec.Struct, kw_only=True):
    """`coverage`: sort of operation -> how it ended -> how often. `excused`: how often the judges left something to Linux, and why."""

    operations: int
    episodes: int
    coverage: dict[str, dict[str, int]]
    counters: dict[str, int]
    failure: Found | None
    excused: dict[str, int] = {}


def fuzz_report(report: Report, smallest: Failure | None = None) -> FuzzReport:
    failure = report.failure
    found = None
    if failure is not None:
        found = Found(message=failure.message, reproduce=failure.command)
        if smallest is not None:
            found.smallest = [f"vcpu {op.vcpu}: {tell(op)}" for op in smallest.operations]
            found.path = None if smallest.crash else _path(smallest)
    return FuzzReport(
        operations=report.operations,
        episodes=report.episodes,
        coverage=_coverage(report.coverage),
        counters={name: count for name, count in sorted(report.counters.items()) if count},
        failure=found,
        excused=_excused(report),
    )


def _excused(report: Report) -> dict[str, int]:
    """By the oracle, which leaves an operation there, and by the audit."""
    ends = {why: sum(n for name, n in report.coverage.items() if name.endswith(f" {why}")) for why in EXCUSED}
    return {why: count for why, count in (ends | report.excused).items() if count}


def _path(failure: Failure) -> AddressPicture | None:
    """The way of the last operation's address, in the VM as that left it."""
    last = failure.operations[-1]
    if last.kind not in (Kind.ACCESS, Kind.EMULATED, Kind.INVLPG, Kind.RACE):
        return None
    guest = perform(failure.setup, failure.operations)
    try:
        return follow_address(guest.vm.vcpus[last.vcpu], last.a)
    except BadInput:  # no address of the mode that the vCPU is in
        return None


def _coverage(counts: dict[str, int]) -> dict[str, dict[str, int]]:
    coverage: dict[str, dict[str, int]] = {}
    for name, count in sorted(counts.items()):
        words = name.split()
        cut = next((at for at in range(1, len(words)) if words[at] in _ENDS), 1)
        coverage.setdefault(" ".join(words[:cut]), {})[" ".join(words[cut:])] = count
    return coverage
