# SPDX-License-Identifier: GPL-2.0-only
"""Where each event comes from: the engine's function, the kernel's, and the rule, by the situation it happens in.

The table has a part a file, `row` says what a row is. `origin_of` chooses the row of an event by the events around it.
"""

from __future__ import annotations

from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.origins import entries, leaves, pages, roots, walk
from shadowmmu.trace.origins import outside as given
from shadowmmu.trace.origins.origin import Around, Case, Origin, always

CASES: tuple[Case, ...] = (*walk.CASES, *pages.CASES, *leaves.CASES, *entries.CASES, *roots.CASES, *given.CASES)
"""Of one kind's cases the first that applies is taken; its last applies always."""
_BY_KIND: dict[type[AnyEvent], list[Case]] = {}
for _case in CASES:
    _BY_KIND.setdefault(_case.kind, []).append(_case)

ALWAYS = {kind: cases[0].origin for kind, cases in _BY_KIND.items() if cases[0].applies is always}
"""Of kinds that have one rule whatever is around them."""


def origin_of(around: Around) -> Origin:
    """The row of the event in the middle."""
    cases = _BY_KIND[type(around.event)]
    for case in cases:
        if case.applies(around):
            return case.origin
    return cases[-1].origin
