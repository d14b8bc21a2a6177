# SPDX-License-Identifier: GPL-2.0-only
"""Draws the rules behind a divergence: ours, the function that holds it, the kernel's function, its number."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from shadowmmu.check.compare.result import Divergence
from shadowmmu.trace.origins.origin import Origin


def draw_rules(found: Divergence) -> Table:
    """What made the engine do what it did, and by what it would have done what the kernel did."""
    table = Table.grid(padding=(0, 1, 0, 0))
    if found.made_by is not None:
        _add(table, "made here by" if any(row.differs for row in found.rows) else "the rule before", found.made_by, found.kernel)
    if found.wanted_by is not None:
        _add(table, "the kernel's, by", found.wanted_by, found.kernel)
    return table


def _add(table: Table, head: str, origin: Origin, kernel: str) -> None:
    what = f"{origin.event}, {origin.situation}: " if origin.situation else f"{origin.event}: "
    numbers = f" ({', '.join(origin.ids)} of docs/rules.md)" if origin.ids else ""
    table.add_row(head, _functions(origin, kernel))
    table.add_row("", Text(what, style="dim") + Text(origin.rule + numbers))


def _functions(origin: Origin, kernel: str) -> str:
    """Where the rule is held, here and in the kernel."""
    if not origin.emitter:
        return f"none of the engine's rules; {origin.kernel} of Linux {kernel}"
    told = "" if origin.decider == origin.emitter else f", told by {origin.emitter}"
    return f"{origin.decider}{told}" + (f"; {origin.kernel} of Linux {kernel}" if origin.kernel else "")
