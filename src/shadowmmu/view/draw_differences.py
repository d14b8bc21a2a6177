"""Draws a `Comparison`: what the guest sees, then what differs, reason by reason."""

from __future__ import annotations

from itertools import groupby

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shadowmmu.view.differences import FOLLOWS, REASONS, Comparison, Figure


def draw_comparison(comparison: Comparison) -> RenderableType:
    parts: list[RenderableType] = []
    if comparison.broke:
        parts += [Text("✘ a run broke off", style="bold red"), *(Text(f"again:  {command}") for command in comparison.broke)]
    elif not comparison.alike:
        parts += [Text("✘ the guest can tell the designs apart", style="bold red"), _figures(comparison.divergences)]
        if comparison.first_line:
            parts += [Text(f"special: {comparison.first_line[0]}"), Text(f"legacy:  {comparison.first_line[1]}")]
    else:
        parts.append(Text("✔ the guest cannot tell the designs apart", style="bold green"))
    parts += [_same("equal for the guest", comparison.guest_sees), Text()]
    order = [*REASONS, FOLLOWS]
    for why, figures in groupby(sorted(comparison.differs, key=lambda figure: order.index(figure.why)), key=lambda figure: figure.why):
        parts += [Text(why, style="italic"), Padding(_figures(list(figures)), (0, 0, 0, 2), expand=False), Text()]
    parts.append(_same("equal in the MMU", [figure for figure in comparison.equal if figure.special]))
    return Group(*parts)


def _same(title: str, figures: list[Figure]) -> Text:
    words = ", ".join(f"{figure.name} {_number(figure.special)}".replace(" ", "\N{NO-BREAK SPACE}") for figure in figures)
    return Text.assemble((f"{title}: ", "bold"), words)


def _figures(figures: list[Figure]) -> Table:
    table = Table("", "special", "legacy", box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.columns[0].min_width = 28
    for column in table.columns[1:]:
        column.justify, column.min_width = "right", 12
    for figure in figures:
        table.add_row(figure.name, _number(figure.special), _number(figure.legacy))
    return table


def _number(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value
