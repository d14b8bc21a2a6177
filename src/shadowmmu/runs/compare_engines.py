# SPDX-License-Identifier: GPL-2.0-only
"""One guest, or list of operations, on this engine and on another: what the guest can tell, where they part, what it costs, by which rules.

Data only.
"""

from __future__ import annotations

import time
from math import log2

import msgspec

from shadowmmu.runs.compare import Figure, figures_of, first_difference
from shadowmmu.runs.costs import BY_NAME, ORDER
from shadowmmu.runs.measured import Measured, RuleCount, Told
from shadowmmu.runs.other_engine import OtherEngine
from shadowmmu.runs.parting import Parting, first_parting, first_visible
from shadowmmu.runs.subject import FileSubject

HERE = "here"
"""What the engine is called that the other one is compared with."""
MORE_STEPS = 2
"""How many times as many exits the other may take as this one."""
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


def compare_engines(subject: FileSubject, other: OtherEngine, roots: str, kernel: str) -> EngineComparison:
    """Run it on both."""
    start = time.monotonic()
    ours = subject.measure(roots, kernel, audits=True)
    theirs = other.measure(subject.path, roots, kernel, MORE_STEPS * len(ours.steps) + 1000, time.monotonic() - start)
    runs = {HERE: ours, other.name: theirs}

    def events_of(name: str, number: int) -> list[Told]:
        return subject.events_of(roots, kernel, number) if name == HERE else other.events_of(subject.path, roots, kernel, number)

    seen = figures_of({name: run.guest_sees for name, run in runs.items()}) if all(run.guest_sees for run in runs.values()) else []
    work = _costs(runs) if all(run.costs for run in runs.values()) else []
    return EngineComparison(
        guest=subject.name,
        engine=other.name,
        changed=other.changed,
        verdicts={name: run.verdict for name, run in runs.items()},
        violations={name: f"after {run.unit} {run.violated}: {run.violation}" for name, run in runs.items() if run.violation},
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
