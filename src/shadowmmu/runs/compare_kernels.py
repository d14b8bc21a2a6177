# SPDX-License-Identifier: GPL-2.0-only
"""One guest, or list of operations, on two kernels: what the newer one does otherwise, rule by rule. Data only.

A rule's part is what becomes of the newer kernel's run without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from shadowmmu.engine.face.kernels import KERNELS, RULES, rules_of
from shadowmmu.runs.compare import Figure, figures_of, first_difference
from shadowmmu.runs.measured import Measured
from shadowmmu.runs.parting import Parting, first_parting, first_visible
from shadowmmu.runs.subject import Subject

WITHOUT, WITH = "without", "with"


class RuleEffect(msgspec.Struct, kw_only=True):
    """What a rule comes to. `visible`: the guest could tell, there first; `first`: the first place that is not the same;
    `places`: how many of the steps with it the run without it has not; `counts`: what it costs, the most changed first."""

    rule: str
    since: str
    says: str
    visible: Parting | None
    first: Parting
    places: int
    counts: list[Figure]


class KernelComparison(msgspec.Struct, kw_only=True):
    """Runs by kernel, the older first. `together`: they differ, and by none of the rules alone."""

    guest: str
    kernels: list[str]
    verdicts: dict[str, str]
    divergences: list[Figure]
    first_line: dict[str, str] | None
    visible: Parting | None
    parting: Parting | None
    rules: list[RuleEffect]
    together: bool

    @property
    def alike(self) -> bool:
        """The guest cannot tell the kernels apart."""
        return len(set(self.verdicts.values())) == 1 and not (self.divergences or self.first_line or self.visible)


def compare_kernels(subject: Subject, roots: str, kernels: tuple[str, str], on_rule: Callable[[str], None]) -> KernelComparison:
    """Run it on both, and for each rule once more; `on_rule` hears which."""
    older, newer = sorted(kernels, key=list(KERNELS).index)
    runs = {kernel: subject.measure(roots, kernel, audits=False) for kernel in (older, newer)}
    seen = figures_of({kernel: run.guest_sees for kernel, run in runs.items()})
    parting = first_parting(runs, partial(subject.events_of, roots))
    rules = [] if parting is None else sorted(_effects(subject, roots, runs[newer], older, newer, on_rule), key=_order)
    return KernelComparison(
        guest=subject.name,
        kernels=[older, newer],
        verdicts={kernel: run.verdict for kernel, run in runs.items()},
        divergences=[figure for figure in seen if not figure.equal],
        first_line=first_difference({kernel: run.output for kernel, run in runs.items()}),
        visible=first_visible(runs),
        parting=parting,
        rules=rules,
        together=parting is not None and not rules,
    )


def _order(effect: RuleEffect) -> tuple[bool, int]:
    """What the guest can tell first, then by place."""
    return effect.visible is None, effect.first.exit


def _effects(
    subject: Subject, roots: str, newer_run: Measured, older: str, newer: str, on_rule: Callable[[str], None]
) -> Iterator[RuleEffect]:
    apart = rules_of(newer) - rules_of(older)
    for rule in (rule for rule in RULES if rule in apart):
        on_rule(rule)
        effect = _effect(subject, roots, newer_run, newer, rule)
        if effect is not None:
            yield effect


def _effect(subject: Subject, roots: str, newer_run: Measured, newer: str, rule: str) -> RuleEffect | None:
    names = {WITHOUT: f"{newer}-{rule}", WITH: newer}
    runs = {WITHOUT: subject.measure(roots, names[WITHOUT], audits=False), WITH: newer_run}
    first = first_parting(runs, lambda name, number: subject.events_of(roots, names[name], number))
    if first is None:
        return None
    return RuleEffect(
        rule=rule,
        since=next(kernel for kernel, has in KERNELS.items() if rule in has),
        says=RULES[rule],
        visible=first_visible(runs),
        first=first,
        places=_places(newer_run, runs[WITHOUT]),
        counts=_counts(runs),
    )


def _places(run: Measured, other: Measured) -> int:
    own = Counter((step.kind, step.digest, step.events) for step in run.steps)
    own.subtract((step.kind, step.digest, step.events) for step in other.steps)
    return sum(count for count in own.values() if count > 0)


def _counts(runs: dict[str, Measured]) -> list[Figure]:
    figures = figures_of({name: run.costs for name, run in runs.items()})
    changed = [figure for figure in figures if not figure.equal]
    return sorted(changed, key=lambda figure: -abs(figure.counts[WITH] - figure.counts[WITHOUT]))
