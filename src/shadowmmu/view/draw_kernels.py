# SPDX-License-Identifier: GPL-2.0-only
"""Draws a `KernelComparison`: rule by rule, what the guest can tell first."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.runs.compare_kernels import KernelComparison, RuleEffect
from shadowmmu.runs.parting import Parting
from shadowmmu.view.draw_differences import draw_figures

MOST = 4
"""Counts that are shown of a rule."""


def draw_kernels(told: KernelComparison) -> RenderableType:
    return Group(*_verdict(told), *(part for rule in told.rules for part in _rule(rule)))


def _verdict(told: KernelComparison) -> Iterator[RenderableType]:
    older, newer = told.kernels
    if told.alike:
        yield Text(f"✔ the guest cannot tell Linux {older} and {newer} apart", style="bold green")
    else:
        ends = ", ".join(f"{plain(verdict)} on {kernel}" for kernel, verdict in told.verdicts.items())
        yield Text(f"✘ the guest can tell Linux {older} and {newer} apart: {ends}", style="bold red")
    if told.parting is None:
        yield Text("their shadow MMUs do the same, event by event")
    if told.together:
        yield Text(f"they part at {_where(told.parting)}, by none of the rules alone")
    if told.first_line:
        yield from (Text(f"  {kernel}: {plain(line)}") for kernel, line in told.first_line.items())
    if told.divergences:
        yield Padding(draw_figures(told.divergences), (0, 0, 0, 2), expand=False)


def _rule(effect: RuleEffect) -> Iterator[RenderableType]:
    yield Text.assemble("\n", (effect.rule, "bold"), f", since {effect.since}: {effect.says}")
    if effect.visible is not None:
        yield Text(f"  the guest can tell, first at {_where(effect.visible)}", style="red")
    yield Text(f"  at {effect.places:,} {'place' if effect.places == 1 else 'places'}, first {_where(effect.first)}")
    for name, event in effect.first.told.items():
        yield Text(f"    {name + ':':9}{plain(event.text.partition('   #')[0])}", overflow="ellipsis", no_wrap=True)
    counts = [f"{figure.name} {' → '.join(f'{count:,}' for count in figure.counts.values())}" for figure in effect.counts[:MOST]]
    if counts:
        yield Text("  " + ", ".join(counts), style="dim")


def _where(parting: Parting | None) -> str:
    return "" if parting is None else ", or ".join(dict.fromkeys(map(plain, parting.kinds.values())))
