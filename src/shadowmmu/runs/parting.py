# SPDX-License-Identifier: GPL-2.0-only
"""Where two runs of one guest, or list of operations, part: at which exit, by which event, and where the guest can tell first."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

import msgspec

from shadowmmu.runs.measured import FAULT_EXITS, Measured, Step, Told


class Parting(msgspec.Struct, kw_only=True):
    """The first exit, or operation, that is not the same: its number and kind, the last event that both told, and the first of each
    that the other has not. `only_events`: the exit itself is the same."""

    exit: int
    kinds: dict[str, str]
    before: Told | None = None
    told: dict[str, Told] = {}


def first_visible(runs: dict[str, Measured]) -> Parting | None:
    """The first exit of the guest's own doing that is not the same in both."""
    own = {name: [step for step in run.steps if step.kind not in FAULT_EXITS] for name, run in runs.items()}
    pairs = zip(*own.values(), strict=False)
    return next((_part(runs, pair) for pair in pairs if len({step.digest for step in pair}) > 1), None)


def first_parting(runs: dict[str, Measured], events_of: Callable[[str, int], list[Told]]) -> Parting | None:
    """The first exit that is not the same, with the events there: `events_of` runs up to an exit and gives its events."""
    pairs = zip(*(run.steps for run in runs.values()), strict=False)
    steps = next((pair for pair in pairs if len({(step.digest, step.events) for step in pair}) > 1), None)
    if steps is None:
        return None
    parting = _part(runs, steps)
    for here, there in zip_longest(*(events_of(name, parting.exit) for name in runs)):
        if here is not None and there is not None and _same(here, there):
            parting.before = here
        else:
            parting.told = {name: told for name, told in zip(runs, (here, there), strict=True) if told is not None}
            break
    return parting


def _part(runs: dict[str, Measured], steps: tuple[Step, ...]) -> Parting:
    told = zip(runs.items(), steps, strict=True)
    return Parting(exit=steps[0].exit, kinds={name: f"{step.kind}, {run.unit} {step.exit}" for (name, run), step in told})


def _same(here: Told, there: Told) -> bool:
    """But for where in host memory things lie."""
    return _without_addresses(here.text) == _without_addresses(there.text)


def _without_addresses(text: str) -> list[str]:
    return [word for word in text.split() if not word.startswith(("spt=", "sptep=", "root=", "pfn="))]
