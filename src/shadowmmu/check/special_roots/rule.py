# SPDX-License-Identifier: GPL-2.0-only
"""What a rule is, by which a VM with roots of special pages may differ from the kernel."""

from __future__ import annotations

from collections.abc import Callable

from shadowmmu.check.special_roots.align import Place, Taken
from shadowmmu.check.special_roots.page_census import key_of
from shadowmmu.trace import events as e

Rule = Callable[[Place], Taken | None]
"""Looks at one place of the two streams, where they differ, and says how many events of each it explains."""
ZAPS = (e.PrepareZapPage, e.SyncPage)
"""What a zap tells: the page, and that an unsync one is in step again."""


class Rules(list[tuple[str, Rule]]):
    """(letter, rule), in the order in which they are asked."""

    def under(self, letter: str) -> Callable[[Rule], Rule]:
        """Enter a rule under its letter."""

        def enter(function: Rule) -> Rule:
            self.append((letter, function))
            return function

        return enter


def leaves_unsync(at: Place, s: e.GetPage) -> bool:
    """Of the table that a level-2 page shadows, this VM has a level-1 page that is unsync: it had to go."""
    return bool(at.ours.tables.get(key_of(s).gfn, set()) & at.ours.unsync)
