# SPDX-License-Identifier: GPL-2.0-only
"""One guest on this engine and on another: what the guest can tell, where the two part, what it costs, and by which rules. Data only."""

from __future__ import annotations

import time
from math import log2
from pathlib import Path

import msgspec

from shadowmmu.machine.loader import Guest
from shadowmmu.runs.compare import Figure, figures_of, first_difference
from shadowmmu.runs.costs import BY_NAME, ORDER
from shadowmmu.runs.measured import Measured, RuleCount, Told, events_of_exit, measure
from shadowmmu.runs.other_engine import OtherEngine
from shadowmmu.runs.parting import Parting, first_parting, first_visible

HERE = "here"
"""What the engine is called that the other one is compared with."""
MUCH = 0.5
"""A change by more than the root of two, either way."""


class CostFigure(Figure, kw_only=True):
    """`function`: the kernel's; `why`: the rule that the cost comes from. `weight`: how many times doubled or halved."""

    function: str
    weight: float


class RuleFigure(Figure, kw_only=True):
    """A rule that was not as often at work in both. `name`: its event and situation; `why`: the rule."""

    decider: str
    function: str


class EngineComparison(msgspec.Struct, kw_only=True):
    """`guest_sees` is equal, `divergences` are not; `visible`: the first exit of the guest's own that is not the same."""

    guest: str
    engine: str
    changed: list[str]
    verdicts: dict[str, str]
    violations: dict[str, str]
    guest_sees: list[Figure]
    divergences: list[Figure]
    first_line: dict[str, str] | None
    visible: Parting | None
    parting: Parting | None
    costs: list[CostFigure]
    rules: list[RuleFigure]
    equal: list[Figure]

    @property
    def alike(self) -> bool:
        """The guest cannot tell the engines apart, both came to the same end, and no audit found anything."""
        return len(set(self.verdicts.values())) == 1 and not (self.violations or self.divergences or self.first_line or self.visible)


def compare_engines(guest: Guest, path: Path, named: str, other: OtherEngine, roots: str, kernel: str) -> EngineComparison:
    """Run the guest, of the file `path`, on both."""
    start = time.monotonic()
    ours = measure(guest, named, roots, kernel)
    theirs = other.measure(path, roots, kernel, len(ours.steps), time.monotonic() - start)
    runs = {HERE: ours, other.name: theirs}

    def events_of(name: str, number: int) -> list[Told]:
        return events_of_exit(guest, named, roots, kernel, number) if name == HERE else other.events_of_exit(path, roots, kernel, number)

    seen = figures_of({name: run.guest_sees for name, run in runs.items()}) if theirs.guest_sees else []
    work = _costs(runs) if theirs.costs else []
    return EngineComparison(
        guest=guest.name,
        engine=other.name,
        changed=other.changed,
        verdicts={name: run.verdict for name, run in runs.items()},
        violations={name: f"after exit {run.violated}: {run.violation}" for name, run in runs.items() if run.violation},
        guest_sees=[figure for figure in seen if figure.equal],
        divergences=[figure for figure in seen if not figure.equal],
        first_line=first_difference({name: run.output for name, run in runs.items()}) if theirs.output else None,
        visible=first_visible(runs),
        parting=first_parting(runs, events_of),
        costs=[figure for figure in work if not figure.equal],
        rules=_rules(runs),
        equal=[Figure(name=figure.name, counts=figure.counts) for figure in work if figure.equal],
    )


# --- what it costs


def _costs(runs: dict[str, Measured]) -> list[CostFigure]:
    """What changed by much first, the dearest of it before the rest."""
    figures = [_cost(figure) for figure in figures_of({name: run.costs for name, run in runs.items()})]
    return sorted(figures, key=lambda figure: (0, ORDER[figure.name]) if figure.weight > MUCH else (1, -figure.weight))


def _cost(figure: Figure) -> CostFigure:
    cost = BY_NAME[figure.name]
    before, after = figure.counts.values()
    return CostFigure(name=figure.name, counts=figure.counts, why=cost.rule, function=cost.function, weight=_weight(before, after))


def _weight(before: int, after: int) -> float:
    """A few of what is rare are no news."""
    return abs(log2((after + 16) / (before + 16)))


def _rules(runs: dict[str, Measured]) -> list[RuleFigure]:
    """Rules that were not as often at work in both."""
    rows: dict[tuple[str, str, str], RuleFigure] = {}
    for name, run in runs.items():
        for rule in run.rules:
            key = rule.event, rule.situation, rule.kernel
            row = rows.setdefault(key, _rule_figure(rule, list(runs)))
            row.counts[name] = rule.count
    differ = [row for row in rows.values() if not row.equal] if all(run.rules for run in runs.values()) else []
    return sorted(differ, key=lambda row: -_weight(*row.counts.values()))


def _rule_figure(rule: RuleCount, names: list[str]) -> RuleFigure:
    name = f"{rule.event}, {rule.situation}" if rule.situation else rule.event
    return RuleFigure(name=name, counts=dict.fromkeys(names, 0), why=rule.rule, decider=rule.decider, function=rule.kernel)
