# SPDX-License-Identifier: GPL-2.0-only
"""Draws the lists of what has a name: guests, captures, and sets of these."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.look.root_chain import RootPicture


class Guest(Protocol):
    name: str
    title: str
    roots: list[RootPicture]


class Capture(Protocol):
    name: str
    description: str
    host: str
    events: int
    root: RootPicture


def draw_guests(guests: Sequence[Guest]) -> RenderableType:
    """A line for each, and one more for each sort of root."""
    table = _table("guest", "what it is", "special roots", "legacy roots")
    for guest in guests:
        table.add_row(guest.name, plain(guest.title))
        for root in guest.roots:
            table.add_row("", Text(f"  {root.whose}", style="dim"), root.special, root.legacy)
    return Group(table, Text(), Text("a picture of one as it runs: shadowmmu show NAME --at 500", style="dim"))


def draw_sets(captures: Sequence[Capture]) -> RenderableType:
    table = _table("set", "captures", "events", "the captured host", "shadowed roots, here special")
    for column in table.columns[1:3]:
        column.justify = "right"
    for name, members in groupby(captures, key=lambda one: one.name.split("/")[0]):
        same = list(members)
        roots = ", ".join(sorted({one.root.special for one in same}))
        table.add_row(plain(name), f"{len(same):,}", f"{sum(one.events for one in same):,}", same[0].host, roots)
    return Group(table, Text(), Text("each capture of a set: shadowmmu captures SET", style="dim"))


def draw_captures(captures: Sequence[Capture]) -> RenderableType:
    table = _table("capture", "events", "root", "what its guest does")
    table.columns[1].justify = "right"
    for one in captures:
        table.add_row(plain(one.name), f"{one.events:,}", one.root.special, plain(one.description))
    return table


def _table(*heads: str) -> Table:
    table = Table(*heads, box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.columns[0].no_wrap = True
    return table
