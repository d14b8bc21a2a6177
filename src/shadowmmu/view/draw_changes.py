# SPDX-License-Identifier: GPL-2.0-only
"""Draws what happened between two exits: the MMU's events with their rules, then each table that changed, before and after."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.look.changes import Change, Changes, TableChange
from shadowmmu.runs.stepped import Between

MOST = 24
"""Tables, entries of one, and events that are drawn."""


def draw_between(told: Between) -> RenderableType:
    return Group(_head(told), *_events(told), *_changes(told.changes))


def _head(told: Between) -> Text:
    alone = told.after == told.before + 1
    words = f"exit {told.after:,}: {told.kind}" if alone else f"from after exit {told.before:,} to after exit {told.after:,}, {told.kind}"
    return Text(words, style="bold")


def _events(told: Between) -> Iterator[RenderableType]:
    if told.broke:
        yield Text(plain(told.broke), style="red")
    for event in told.events[:MOST]:
        line = Text(f"  {plain(event.text.replace('   # ', ' # '))}", overflow="ellipsis", no_wrap=True)
        yield line
        yield Text(f"    {event.rule.kernel or event.rule.decider}: {event.rule.rule}", style="dim", overflow="ellipsis", no_wrap=True)
    if len(told.events) > MOST:
        yield Text(f"  and {len(told.events) - MOST:,} more events (--json has all)")


def _changes(changes: Changes) -> Iterator[RenderableType]:
    yield from (Text(plain(line), style="yellow") for line in changes.registers)
    for name, (before, after) in changes.pages.items():
        yield Text(f"shadow pages {name}: {before:,} → {after:,}")
    if not changes.tables:
        yield Text("no table changed", style="dim")
    for table in changes.tables[:MOST]:
        yield Text()
        yield _table_head(table)
        if table.entries:
            yield Padding(_entries(table), (0, 0, 0, 2), expand=False)
    if len(changes.tables) > MOST:
        yield Text(f"and {len(changes.tables) - MOST:,} more tables (--json has all)")


def _table_head(table: TableChange) -> Text:
    place = "".join(f"[{index:03x}]" for index in table.where) or "root"
    states = list(dict.fromkeys(plain(state) if state else "·" for state in (table.before, table.after)))
    what = "" if table.before and table.after else " comes" if table.after else " goes"
    named = table.after or table.before or ""
    words = f" → {states[1]}" if len(states) > 1 and not what else ""
    head = states[0] if not what else plain(named)
    return Text.assemble((f"{head}{words}{what}", "bold"), (f" · {place} of the {table.mmu} MMU, vCPU {table.vcpu}", "dim"))


def _entries(table: TableChange) -> Table:
    drawn = Table("", "", "before", "after", "guest", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for change in table.entries[:MOST]:
        mark, style = _mark(change)
        index = f"[{change.first:03x}]" if change.first == change.last else f"[{change.first:03x}-{change.last:03x}]"
        guest = "" if change.guest is None else f"{change.guest:x}"
        drawn.add_row(mark, index, _side(change.before, change.entry_before), _side(change.after, change.entry_after), guest, style=style)
    more = len(table.entries) - MOST
    rest = [f"{more:,} more changed"] if more > 0 else []
    rest += [f"{table.same:,} as before"] if table.same else []
    if rest:
        drawn.add_row("", "…", Text(", ".join(rest), style="dim"), "", "")
    return drawn


def _mark(change: Change) -> tuple[str, str]:
    if change.before is None:
        return "+", "green"
    return ("-", "red") if change.after is None else ("~", "yellow")


def _side(words: str | None, entry: int | None) -> str:
    return "·" if words is None else f"{plain(words)}  {entry:x}"
