# SPDX-License-Identifier: GPL-2.0-only
"""Draws what exercises functions of the engine."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shadowmmu.runs.exercised.best import Exercised, Exerciser
from shadowmmu.runs.exercised.record import KINDS, REMEDY, Kind

COUNTED: dict[Kind, str] = {"guest": "exit", "capture": "event", "bug": "operation", "test": ""}
HEADS: dict[Kind, str] = {"guest": "guests", "capture": "captures", "bug": "known bugs", "test": "tests"}


def draw_exercised(answer: Exercised) -> RenderableType:
    """A table with a section for each kind, and below it what no run reaches or the record does not know."""
    many = len(answer.functions) > 1
    what = f"{len(answer.functions)} functions" if many else answer.functions[0]
    head = Text(f"{what}, {answer.parts} parts: what runs through most of them, then soonest", style="bold")
    below = [Text(line) for line in _notes(answer)]
    return Group(head, Text(), _table(answer, many), *([Text(), *below] if below else []))


def _table(answer: Exercised, many: bool) -> Table:
    table = Table("", *(["functions"] if many else []), "parts", "first at", "command", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns[1:-1]:
        column.justify = "right"
    table.columns[-1].overflow = "fold"
    for kind in KINDS:
        rows = [one for one in answer.best if one.kind == kind]
        for number, one in enumerate(rows):
            table.add_row("" if number else HEADS[kind], *_row(one, many))
        if not rows:
            table.add_row(HEADS[kind], *([""] if many else []), "", "", "none", style="dim")
    return table


def _row(one: Exerciser, many: bool) -> list[str]:
    at = "" if one.at is None else f"{COUNTED[one.kind]} {one.at:,}" if one.at else "the start"
    return [*([str(one.functions)] if many else []), str(one.parts) if one.parts else "edited", at, one.command]


def _notes(answer: Exercised) -> list[str]:
    return [
        *([f"never reached by any of what is recorded: {', '.join(answer.never)}"] if answer.never else []),
        *([f"newer than the record: {', '.join(answer.unknown)}; {REMEDY}"] if answer.unknown else []),
        *([f"recorded, but gone: {', '.join(answer.gone)}; {REMEDY}"] if answer.gone else []),
    ]
