# SPDX-License-Identifier: GPL-2.0-only
"""What a guest asks for and the machine does not have: the first thing to know of a guest that fails."""

from typing import Literal

Kind = Literal["MMIO", "ports", "MSRs", "CPUID leaves"]
KEPT = 8
"""Different things of each kind that are remembered, the last ones."""


class Unclaimed:
    """Hears of each access that nothing answers."""

    def __init__(self) -> None:
        self._times: dict[Kind, dict[str, int]] = {"MMIO": {}, "ports": {}, "MSRs": {}, "CPUID leaves": {}}

    def _note(self, kind: Kind, what: str) -> None:
        times = self._times[kind]
        times[what] = times.pop(what, 0) + 1  # the last one comes last
        if len(times) > KEPT:
            del times[next(iter(times))]

    def memory(self, gpa: int, size: int, write: bool) -> None:
        self._note("MMIO", f"{'write' if write else 'read'} {gpa:#x}, {size} byte{'s' * (size > 1)}")

    def port(self, port: int, size: int, write: bool) -> None:
        self._note("ports", f"{'out' if write else 'in'} {port:#x}, {size} byte{'s' * (size > 1)}")

    def msr(self, index: int, write: bool) -> None:
        self._note("MSRs", f"{'WRMSR' if write else 'RDMSR'} {index:#x}")

    def cpuid(self, leaf: int, subleaf: int) -> None:
        self._note("CPUID leaves", f"{leaf:#x}" + (f", {subleaf:#x}" if subleaf else ""))

    def last(self) -> dict[str, dict[str, int]]:
        """How often each was asked for, by kind, the last one last."""
        return {kind: dict(times) for kind, times in self._times.items() if times}
