# SPDX-License-Identifier: GPL-2.0-only
"""The guest's tables as walks came through them, and the pages that shadow each at the end of the trace."""

from __future__ import annotations

from shadowmmu.look.data import Hex
from shadowmmu.runs.explained.explanation import TableSeen
from shadowmmu.runs.explained.pages import Pages
from shadowmmu.runs.explained.walks import Walks
from shadowmmu.trace.layouts import describe

MOST_TREES, MOST_TABLES = 10, 40
"""That are told, of all VMs' vCPUs; and of one vCPU's trees together."""


def trees_of(walks: Walks, pages: Pages) -> list[TableSeen]:
    """Guest tables, each below the one that a walk came from; those that nothing leads to first."""
    by_table: dict[tuple[int, int], list[str]] = {}
    for page in pages.there.values():
        mark = " unsync" if page.unsync else ""
        by_table.setdefault((page.role & 15, page.gfn), []).append(describe(page.role) + mark)
    below = {child for children in walks.below.values() for child in children}
    tops = sorted((table for table in {*walks.seen, *by_table} if table not in below), reverse=True)
    left = [MOST_TABLES]

    def draw(table: tuple[int, int]) -> TableSeen:
        left[0] -= 1
        drawn = TableSeen(table[0], Hex(table[1]), by_table.get(table, []), walks.seen[table])
        for child in sorted(walks.below.get(table, ()), key=lambda one: -walks.seen[one]):
            if left[0] > 0 and child[0] < table[0]:
                drawn.below.append(draw(child))
        return drawn

    return [draw(table) for table in tops[:MOST_TREES] if left[0] > 0]
