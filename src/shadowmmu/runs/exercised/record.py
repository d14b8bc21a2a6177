# SPDX-License-Identifier: GPL-2.0-only
"""The record of what reaches which functions of the engine: `record.txt`, one block a function, sorted, for people to diff.

    engine/roots/roots fast_pgd_switch 14
     guest 14@65 l1-no-npt, 9@12 pae
     test 12@40 tests/rules/test_hazards.py::test_h1

says that the function has 14 parts, pieces of code between two jumps; that the guest l1-no-npt runs through all of them, and
comes there at its exit 65. What the number behind @ counts is a matter of the kind. A block without rows is never reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

import msgspec

from shadowmmu.errors import BadInput
from shadowmmu.runs.exercised.sources import Function

RECORD = Path(__file__).with_name("record.txt")
REMEDY = "record it again in a checkout: python tools/exercised.py --write"
HEAD = "# What reaches which functions of the engine, and how much of them: `python tools/exercised.py --write` writes this.\n"
Kind = Literal["guest", "capture", "bug", "test"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_ROW = re.compile(r"(\d+)@(\d+) (.+)")


class Reached(msgspec.Struct, frozen=True):
    """That one exerciser reaches a function.

    name    with its options, as the command line has it
    parts   how many of the function's parts it runs through; 0 of a known bug that has no list: the edit is in the function
    at      when it comes there first: the guest's exit, the capture's event, the operation of the bug's list. Of a test, how many
            functions it reaches in all
    """

    kind: Kind
    name: str
    parts: int
    at: int


class Recorded(msgspec.Struct):
    """A function, and what reaches it."""

    parts: int
    rows: list[Reached]


Record = dict[Function, Recorded]


def best_first(rows: Iterable[Reached]) -> list[Reached]:
    """What runs through most of a function stands first, then what comes there soonest."""
    return sorted(rows, key=lambda row: (KINDS.index(row.kind), -row.parts, row.at, row.name))


def once_each(rows: Iterable[Reached]) -> list[Reached]:
    """Each guest, capture, bug and test once: without options, unless it runs through more with them. The best stands first."""
    best: dict[tuple[Kind, str], Reached] = {}
    for row in sorted(rows, key=lambda row: (-row.parts, " " in row.name, row.at)):
        best.setdefault((row.kind, row.name.partition(" ")[0]), row)
    return best_first(best.values())


def to_text(record: Record) -> str:
    return HEAD + "".join(_block(function, record[function]) for function in sorted(record))


def _block(function: Function, recorded: Recorded) -> str:
    rows = best_first(recorded.rows)
    lines = [f"{function.module} {function.name} {recorded.parts}\n"]
    for kind in KINDS:
        told = ", ".join(f"{row.parts}@{row.at} {row.name}" for row in rows if row.kind == kind)
        lines += [f" {kind} {told}\n"] if told else []
    return "".join(lines)


def from_text(text: str) -> Record:
    """Raises BadInput for what `to_text` has not made."""
    record: Record = {}
    block = Recorded(0, [])
    try:
        for line in text.splitlines():
            if line.startswith(" ") and record:
                block.rows.extend(_rows(line))
            elif not line.startswith("#"):
                module, name, parts = line.split(" ")
                block = record[Function(module, name)] = Recorded(int(parts), [])
    except (ValueError, msgspec.ValidationError) as error:
        raise BadInput(f"{RECORD.name} is damaged, {error}: {REMEDY}") from None
    return record


def _rows(line: str) -> Iterator[Reached]:
    kind, _, told = line.strip().partition(" ")
    for one in told.split(", "):
        row = _ROW.fullmatch(one)
        if row is None:
            raise ValueError(f"not a row: {one[:40]!r}")
        yield Reached(msgspec.convert(kind, Kind), row[3], int(row[1]), int(row[2]))


def read_record() -> Record:
    """The record that this package has."""
    if not RECORD.exists():
        raise BadInput(f"this package has no {RECORD.name}: {REMEDY}")
    return from_text(RECORD.read_text())
