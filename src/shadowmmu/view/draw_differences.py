"""Draws a `Comparison`: what the guest sees, then what differs, reason by reason."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from textwrap import fill

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shadowmmu.runs.compare import ORDER, Comparison, Figure
from shadowmmu.view.draw_picture import WIDTH


def draw_comparison(comparison: Comparison) -> RenderableType:
    parts: list[RenderableType] = [*_verdict(comparison), _same("equal for the guest", comparison.guest_sees), Text()]
    parts += [Text("roots, from the top to the first table of the guest", style="italic"), _chains(comparison), Text()]
    for why, figures in groupby(sorted(comparison.differs, key=lambda figure: ORDER.index(figure.why)), key=lambda figure: figure.why):
        parts += [Text(why, style="italic"), Padding(_figures(list(figures)), (0, 0, 0, 2), expand=False), Text()]
    parts.append(_same("equal in the MMU", [figure for figure in comparison.equal if figure.special]))
    return Group(*parts)


def _chains(comparison: Comparison) -> RenderableType:
    table = Table("", "special", "legacy", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for chain in comparison.chains:
        table.add_row(chain.whose, chain.special or "·", chain.legacy or "·")
    return Padding(table, (0, 0, 0, 2), expand=False)


def _verdict(comparison: Comparison) -> Iterator[RenderableType]:
    special, legacy = comparison.verdicts
    ended = f": {special} on both" if special == legacy else f": {special} on special, {legacy} on legacy roots"
    if comparison.alike:
        yield Text(f"✔ the guest cannot tell the designs apart{ended}", style="bold green")
        return
    yield Text(f"✘ {'a run broke off' if comparison.broke else 'the guest can tell the designs apart'}{ended}", style="bold red")
    yield from (Text(f"again:  {command}") for command in comparison.broke)
    if comparison.divergences:
        yield _figures(comparison.divergences)
    if comparison.first_line:
        yield Text(f"special: {comparison.first_line[0]}")
        yield Text(f"legacy:  {comparison.first_line[1]}")


def _same(title: str, figures: list[Figure]) -> Text:
    """All of them in a paragraph, no line of which ends between a name and its number."""
    words = ", ".join(f"{figure.name} {figure.special:,}".replace(" ", "\N{NO-BREAK SPACE}") for figure in figures)
    lines = fill(f"{title}: {words}", WIDTH, break_on_hyphens=False, break_long_words=False).replace("\N{NO-BREAK SPACE}", " ")
    return Text.assemble((title, "bold"), lines.removeprefix(title))


def _figures(figures: list[Figure]) -> Table:
    table = Table("", "special", "legacy", box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.columns[0].min_width = 28
    for column in table.columns[1:]:
        column.justify, column.min_width = "right", 12
    for figure in figures:
        table.add_row(figure.name, f"{figure.special:,}", f"{figure.legacy:,}")
    return table
