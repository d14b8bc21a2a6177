# SPDX-License-Identifier: GPL-2.0-only
"""Draws reverse maps: a line for a run of guest pages, with the entries that map it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from shadowmmu.look.reverse import Place, ReverseMap

PLACES = 3
"""Entries shown of one page."""


def draw_reverse(rows: Sequence[ReverseMap]) -> RenderableType:
    table = Table("gfn", "pages", "mapped by", box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.columns[1].justify = "right"
    for row in rows:
        each = 1 << 9 * (row.places[0].level - 1)
        pages = (row.last - row.first + 1) // each
        gfns = f"{row.first:x}" + (f"..{row.last:x}" if row.last != row.first else "") + (" SMM" if row.address_space else "")
        table.add_row(gfns, f"{pages}", Text(", ").join(_place(place, pages) for place in row.places[:PLACES]).append(_rest(row), "dim"))
    return table


def _place(place: Place, pages: int) -> Text:
    last = f"-{place.index + pages - 1:03x}" if pages > 1 else ""
    return Text.assemble(
        f"l{place.level}", (" direct", "cyan") if place.direct else "", f" {place.gfn:x}", (f"[{place.index:03x}{last}]", "dim")
    )


def _rest(row: ReverseMap) -> str:
    return f" and {len(row.places) - PLACES} more" if len(row.places) > PLACES else ""
