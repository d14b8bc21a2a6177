# SPDX-License-Identifier: GPL-2.0-only
"""Draws an `EngineComparison`: in ten lines what a reviewer needs, then everything that differs, with its rule."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.runs.compare_engines import EngineComparison, RuleFigure
from shadowmmu.runs.parting import Parting
from shadowmmu.view.draw_differences import draw_figures, draw_same

FIRST = 5
"""Costs that stand in the first ten lines."""
RULES = 20
_CHANGED = 4


def draw_engines(told: EngineComparison) -> RenderableType:
    parts: list[RenderableType] = [_changed(told), *_verdict(told), *_parting(told.parting)]
    parts += [*_costs(told), *_details(told), *_rules(told.rules), Text()]
    parts += [draw_same("equal for the guest", told.guest_sees), draw_same("equal in cost", told.equal)]
    return Group(*parts)


def _changed(told: EngineComparison) -> Text:
    more = len(told.changed) - _CHANGED
    return Text(f"{plain(told.engine)} changes {', '.join(told.changed[:_CHANGED])}{f' and {more} more' if more > 0 else ''}", style="dim")


def _verdict(told: EngineComparison) -> Iterator[Text]:
    ends = ", ".join(dict.fromkeys(plain(verdict) for verdict in told.verdicts.values()))
    if told.alike:
        yield Text(f"✔ the guest cannot tell the engines apart: {ends} on both", style="bold green")
        return
    ended = ", ".join(f"{plain(verdict)} on {plain(name)}" for name, verdict in told.verdicts.items())
    visible = told.first_line or told.divergences or told.visible or len(set(told.verdicts.values())) > 1
    yield Text(f"✘ {'the guest can tell the engines apart' if visible else 'the audit finds a fault'}: {ended}", style="bold red")
    yield from (Text(f"  {plain(name)}: {plain(what)}", style="red") for name, what in told.violations.items())
    if told.visible:
        yield _kinds("  first seen by the guest", told.visible)


def _kinds(head: str, parting: Parting) -> Text:
    kinds = dict.fromkeys(parting.kinds.values())
    if len(kinds) == 1:
        return Text(f"{head} at {next(iter(kinds))}")
    return Text(f"{head}: " + ", ".join(f"{kind} ({plain(name)})" for name, kind in parting.kinds.items()))


def _parting(parting: Parting | None) -> Iterator[RenderableType]:
    if parting is None:
        yield Text("no exit differs, nor an event of the MMU", style="green")
        return
    yield _kinds("they part", parting)
    for name, told in parting.told.items():
        event, _, fields = told.text.partition("   #")[0].partition(" ")
        yield _line(f"  {name}: {event}, {told.rule.kernel or told.rule.decider}: {fields}")


def _line(text: str) -> Text:
    """One line, however long it is."""
    return Text(plain(text), overflow="ellipsis", no_wrap=True)


def _costs(told: EngineComparison) -> Iterator[RenderableType]:
    """Those that say the most."""
    if not told.costs:
        return
    yield Text(f"{'what it costs':27}" + "".join(f"{plain(name)[:14]:>15}" for name in told.verdicts), style="bold")
    for figure in told.costs[:FIRST]:
        before, after = figure.counts.values()
        line = Text(f"  {figure.name:25}{before:>15,}{after:>15,}{_times(before, after):>12}", overflow="ellipsis", no_wrap=True)
        yield line.append(f"  {figure.function}", style="cyan")


def _times(before: int, after: int) -> str:
    if not before:
        return "new"
    times = after / before
    return f"{times:.1f} times" if times >= 2 else f"{100 * (times - 1):+.1f} %"


def _details(told: EngineComparison) -> Iterator[RenderableType]:
    """What the guest saw otherwise, and the other costs."""
    if told.first_line:
        yield Text("\nthe first line of output that is not the same", style="italic")
        yield from (Text(f"  {plain(name) + ':':12}{plain(line)}") for name, line in told.first_line.items())
    if told.divergences:
        yield Text("\nwhat the guest sees otherwise", style="italic")
        yield Padding(draw_figures(told.divergences), (0, 0, 0, 2), expand=False)
    if told.parting and told.parting.told:
        yield Text("\nthe rules where they part", style="italic")
        for name, event in told.parting.told.items():
            yield Text.assemble(f"  {plain(name)}: ", event.rule.decider, (f" · {event.rule.rule}", "dim"))
    if told.costs:
        yield Text("\ncosts that are not the same, and what they come from", style="italic")
        for figure in told.costs:
            counts = " → ".join(f"{count:,}" for count in figure.counts.values())
            yield Text.assemble(f"  {figure.name}: ", (counts, "bold"), (f" · {figure.why}", "dim"))


def _rules(rules: list[RuleFigure]) -> Iterator[RenderableType]:
    if not rules:
        return
    yield Text("\nrules that were not as often at work", style="italic")
    for rule in rules[:RULES]:
        counts = " → ".join(f"{count:,}" for count in rule.counts.values())
        yield Text.assemble(f"  {rule.name}: ", (counts, "bold"), (f" · {rule.decider}, {rule.function or 'this engine only'}", "cyan"))
        yield Padding(Text(rule.why, style="dim"), (0, 0, 0, 4))
    if len(rules) > RULES:
        yield Text(f"  and {len(rules) - RULES} more (--json has all)")
