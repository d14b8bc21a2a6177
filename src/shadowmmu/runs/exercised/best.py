# SPDX-License-Identifier: GPL-2.0-only
"""What to run for files and functions of the engine, the best first.

Best is what runs through most of them, since a fault hides in the part that is seldom taken; then what comes there soonest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from shadowmmu.errors import BadInput
from shadowmmu.runs.exercised.asked import meant
from shadowmmu.runs.exercised.record import KINDS, REMEDY, Kind, Reached, Record, once_each
from shadowmmu.runs.exercised.sources import Function, functions


class Exerciser(msgspec.Struct, kw_only=True):
    """A guest, a capture, a known bug or a test.

    functions   how many of the functions asked for it reaches, and `parts` how much of them it runs through
    at          when it comes there first: the guest's exit, the capture's event, the operation of the bug's list; null where nothing
                counts it, that is of tests, and of bugs without a list
    """

    kind: Kind
    name: str
    functions: int
    parts: int
    at: int | None
    command: str


class Exercised(msgspec.Struct, kw_only=True):
    """The answer.

    functions   those asked for, as `file:function`; `parts` how many parts, pieces of code between two jumps, they have
    best        what reaches them, by kind, the best first
    never       those that nothing recorded reaches
    unknown     those that are newer than the record, and `gone` recorded ones that are no more
    """

    functions: list[str]
    parts: int
    best: list[Exerciser]
    never: list[str]
    unknown: list[str]
    gone: list[str]


def exercised(asked: Sequence[str], record: Record, most: int) -> Exercised:
    """Of each kind the `most` best for all that is asked. Raises BadInput for what the engine has not."""
    here = functions()
    wanted = {function for one in asked for function in meant(one, here)}
    known = sorted(wanted & record.keys())
    if not known:
        raise BadInput(f"{', '.join(asked)[:200]}: newer than the record of what reaches which functions: {REMEDY}")
    modules = {function.module for function in wanted}
    return Exercised(
        functions=[str(function) for function in known],
        parts=sum(record[function].parts for function in known),
        best=list(_best(known, record, most)),
        never=[str(function) for function in known if not any(row.parts for row in record[function].rows)],
        unknown=[str(function) for function in sorted(wanted - record.keys())],
        gone=[str(function) for function in sorted(record.keys() - here) if function.module in modules],
    )


def _best(known: Iterable[Function], record: Record, most: int) -> Iterator[Exerciser]:
    found: defaultdict[tuple[Kind, str], list[Reached]] = defaultdict(list)
    for function in known:
        for row in record[function].rows:
            found[row.kind, row.name].append(row)
    for kind in KINDS:
        whole = [
            Reached(kind, name, sum(row.parts for row in rows), min(row.at for row in rows))
            for (its, name), rows in found.items()
            if its == kind
        ]
        for one in once_each(whole)[:most]:
            yield _exerciser(one, len(found[kind, one.name]))


def _exerciser(one: Reached, reached: int) -> Exerciser:
    at = one.at if one.parts and one.kind != "test" else None
    return Exerciser(kind=one.kind, name=one.name, functions=reached, parts=one.parts, at=at, command=_command(one))


def _command(one: Reached) -> str:
    """What to type."""
    guest, *options = one.name.split(" ")
    return {
        "guest": " ".join(["shadowmmu step", guest, "--at", str(max(one.at, 1)), *options]),
        "capture": f"shadowmmu replay {one.name}",
        "bug": f"shadowmmu fuzz --ops bugs/lists/{one.name}.ops" if one.parts else f"shadowmmu bugs {one.name} --hunts 1",
        "test": f"python -m pytest {one.name}",
    }[one.kind]
