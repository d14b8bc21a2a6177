# SPDX-License-Identifier: GPL-2.0-only
"""Draws a `Comparison`: what the guest sees, then what differs, reason by reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import fill

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.runs.compare import Comparison, Figure, reasons
from shadowmmu.view.draw_picture import WIDTH


def draw_comparison(comparison: Comparison) -> RenderableType:
    parts: list[RenderableType] = [*_verdict(comparison), draw_same("equal for the guest", comparison.guest_sees), Text()]
    parts += [Text("roots, from the top to the first table of the guest", style="italic"), _chains(comparison), Text()]
    order = reasons()
    for why, figures in groupby(sorted(comparison.differs, key=lambda figure: order.index(figure.why)), key=lambda figure: figure.why):
        parts += [Text(why, style="italic"), Padding(draw_figures(list(figures)), (0, 0, 0, 2), expand=False), Text()]
    parts.append(draw_same("equal in the MMU", [figure for figure in comparison.equal if max(figure.counts.values())]))
    return Group(*parts)


def _chains(comparison: Comparison) -> RenderableType:
    table = Table("", *comparison.verdicts, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for chain in comparison.chains:
        table.add_row(chain.whose, *(top or "·" for top in chain.tops.values()))
    return Padding(table, (0, 0, 0, 2), expand=False)


def _verdict(comparison: Comparison) -> Iterator[RenderableType]:
    ends = comparison.verdicts
    first = next(iter(ends.values()))
    ended = f"{first} on {'both' if len(ends) == 2 else f'all {len(ends)}'}"
    if len(set(ends.values())) > 1:
        ended = ", ".join(f"{verdict} on {design}" for design, verdict in ends.items()) + " roots"
    if comparison.alike:
        yield Text(f"✔ the guest cannot tell the designs apart: {ended}", style="bold green")
        return
    yield Text(f"✘ {'a run broke off' if comparison.broke else 'the guest can tell the designs apart'}: {ended}", style="bold red")
    yield from (Text(f"again:  {plain(command)}") for command in comparison.broke)
    if comparison.divergences:
        yield draw_figures(comparison.divergences)
    if comparison.first_line:
        yield from (Text(f"{design + ':':9}{plain(line)}") for design, line in comparison.first_line.items())


def draw_same(title: str, figures: list[Figure]) -> Text:
    """All of them in a paragraph, no line of which ends between a name and its number."""
    told = ((figure.name, next(iter(figure.counts.values()))) for figure in figures)
    words = ", ".join(f"{name} {count:,}".replace(" ", "\N{NO-BREAK SPACE}") for name, count in told)
    lines = fill(f"{title}: {words}", WIDTH, break_on_hyphens=False, break_long_words=False).replace("\N{NO-BREAK SPACE}", " ")
    return Text.assemble((title, "bold"), lines.removeprefix(title))


def draw_figures(figures: Sequence[Figure]) -> Table:
    table = Table("", *figures[0].counts, box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.columns[0].min_width = 28
    for column in table.columns[1:]:
        column.justify, column.min_width = "right", 12
    for figure in figures:
        table.add_row(figure.name, *(f"{count:,}" for count in figure.counts.values()))
    return table
