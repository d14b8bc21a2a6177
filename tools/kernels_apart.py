# SPDX-License-Identifier: GPL-2.0-only
"""All guests of captures, run as code on one kernel after the other: what each newer one does otherwise, by rule.

Example: python tools/kernels_apart.py              every shipped capture
         python tools/kernels_apart.py shadow       those of a set
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise

import msgspec

from shadowmmu.captures.find import find_all
from shadowmmu.check.rerun.rerun import not_rerun
from shadowmmu.cli.main import complain
from shadowmmu.engine.face.kernels import KERNELS, RULES
from shadowmmu.errors import BadInput
from shadowmmu.runs.compare_kernels import KernelComparison, RuleEffect, compare_kernels
from shadowmmu.runs.subject import CapturedSubject

Pair = tuple[str, str]


class Apart:
    """What came of all guests on two kernels."""

    def __init__(self) -> None:
        self.guests = 0
        self.differ: list[KernelComparison] = []

    def take(self, comparison: KernelComparison) -> None:
        self.guests += 1
        if comparison.parting is not None:
            self.differ.append(comparison)

    def effects(self, rule: str) -> list[tuple[str, RuleEffect]]:
        return [(one.guest, effect) for one in self.differ for effect in one.rules if effect.rule == rule]


def guests(names: Iterable[str]) -> Iterator[CapturedSubject]:
    """One capture of each guest on each host: that more than one kernel ran it is no other guest."""
    seen = set()
    for found in find_all(tuple(names), None):
        capture = found.load()
        key = (capture.guest.name, msgspec.structs.replace(capture.setup, kernel=""))
        if key not in seen and not not_rerun(capture):
            seen.add(key)
            yield CapturedSubject(found.argument, capture)


def table(pair: Pair, apart: Apart) -> Iterator[str]:
    """Markdown: a row for each rule by which a guest's run differs, and behind it what no single rule explains."""
    tell = sum(not one.alike for one in apart.differ)
    yield f"{' and '.join(pair)}: {len(apart.differ)} of {apart.guests} guests' runs differ, {tell} of these guests can tell."
    yield ""
    yield "| rule | runs | the guest can tell | places | most in |"
    yield "|---|---|---|---|---|"
    for rule in RULES:
        effects = apart.effects(rule)
        if effects:
            visible, places = sum(effect.visible is not None for _, effect in effects), sum(effect.places for _, effect in effects)
            most = max(effects, key=lambda named: named[1].places)
            yield f"| `{rule}` | {len(effects)} | {visible} | {places:,} | `{most[0]}`, {most[1].places:,} |"
    together = [one.guest for one in apart.differ if one.together]
    yield ""
    yield f"By no rule alone: {', '.join(together) or 'none'}."


def main(names: list[str]) -> None:
    pairs: dict[Pair, Apart] = {pair: Apart() for pair in pairwise(KERNELS)}
    for subject in guests(names):
        for pair, apart in pairs.items():
            apart.take(compare_kernels(subject, subject.roots, pair, lambda _rule: None))
    for pair, apart in pairs.items():
        print("\n".join(table(pair, apart)), end="\n\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BadInput as error:
        sys.exit(complain(str(error)))
