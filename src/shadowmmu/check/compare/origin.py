# SPDX-License-Identifier: GPL-2.0-only
"""Which rule of ours made a divergence, and by which we would have done what the kernel did."""

from __future__ import annotations

import msgspec

from shadowmmu.captures.capture import Capture
from shadowmmu.check.compare.ignore import INPUTS
from shadowmmu.check.compare.result import Divergence
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.origins import origin_of
from shadowmmu.trace.origins.later import on_kernel
from shadowmmu.trace.origins.origin import UNRELATED, Around


def with_origins(found: Divergence, capture: Capture) -> Divergence:
    """The divergence with the rules behind it. Before it the capture's events are the engine's too.

    Where no event differs, but a table, a value or a counter, the rule is that of the last thing the MMU did before.
    """
    found = _with_rules(found, capture)
    series = capture.setup.series
    made, wanted = (rule and on_kernel(rule, series) for rule in (found.made_by, found.wanted_by))
    return msgspec.structs.replace(found, made_by=made, wanted_by=wanted, kernel=series)


def _with_rules(found: Divergence, capture: Capture) -> Divergence:
    before, npt = capture.events[: found.index], capture.setup.npt
    here = next((i for i, row in enumerate(found.rows) if row.differs), None)
    if here is None:
        last = next((i for i in range(len(before) - 1, -1, -1) if _is_of_the_mmu(before[i])), None)
        made = None if last is None else origin_of(Around(before[last], before[:last], before[last + 1 :], npt))
        return msgspec.structs.replace(found, made_by=made)
    at = found.rows[here]
    ours = [row.engine for row in found.rows[here:] if row.engine is not None]
    theirs = [row.kernel for row in found.rows[here:] if row.kernel is not None]
    made = origin_of(Around(ours[0], before, ours[1:], npt)) if at.engine is not None else None
    is_other = at.kernel is not None and type(at.kernel) is not type(at.engine)  # else it is the same rule's with another outcome
    wanted = origin_of(Around(theirs[0], before, theirs[1:], npt)) if is_other else None
    return msgspec.structs.replace(found, made_by=made, wanted_by=wanted)


def _is_of_the_mmu(event: AnyEvent) -> bool:
    return type(event) not in INPUTS and not isinstance(event, UNRELATED) and bool(origin_of(Around(event, ())).emitter)
