# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu bugs`: known bugs put back one by one, and hunted from rules alone."""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter, validators
from rich.table import Table
from rich.text import Text

from shadowmmu.border.files import check_place, parsing, read_file, write_file
from shadowmmu.border.limits import OPERATIONS
from shadowmmu.check.bugs.copy import checkout, find_bug
from shadowmmu.check.bugs.hunt import HUNTS, Verdict, judges_hash
from shadowmmu.check.bugs.jobs import hunt_bugs
from shadowmmu.check.bugs.table import with_rows
from shadowmmu.cli.output import console, print_json
from shadowmmu.errors import BadInput
from shadowmmu.view.draw_fuzz import draw_excused


class BugsReport(msgspec.Struct, kw_only=True):
    """`judges`: hash of all files that judge; a clean run with the same ones finds nothing."""

    judges: str
    bugs: list[Verdict]


def bugs(
    *names: str,
    seconds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 60,
    hunts: Annotated[int, Parameter(validator=validators.Number(gte=1))] = HUNTS,
    some: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    jobs: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=64))] = 1,
    show: Annotated[bool, Parameter(negative="")] = False,
    save: Path | None = None,
    write: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Put known bugs into a copy of the engine, one at a time, and let random operations find them.

    Nothing of a bug is known to the hunt: it begins with seeds that come from the bug's name. Exit code 1 if one is missed, 2 if one
    cannot be put in. One of which its file says why it cannot be seen is listed with the reason.

    Example: shadowmmu bugs cve-2026-46113 mine.diff

    Parameters
    ----------
    names
        Bugs of the museum (bugs/), or files: bugs as TOML, or unified diffs of src/. All of the museum if none is named.
    seconds
        How long one hunt may last.
    hunts
        How often each bug is hunted; four of five must find it.
    some
        Hunt only so many of those named, others each day; 0: all.
    jobs
        How many bugs to hunt at a time: no more than there are idle CPUs, as a hunt has its seconds by the clock.
    show
        Print of each bug found what its shortest list says on the engine with the bug: the operations, and the way of the address.
    save
        Write the shortest list of each bug found into this folder, as ID.ops.
    write
        Put what came of it into the table of this file, which is docs/bugs.md or like it.
    json
        Print the report as JSON.
    """
    chosen = [find_bug(name) for name in names or sorted(_museum())]
    if some:
        first = date.today().toordinal() * some
        chosen = [chosen[(first + number) % len(chosen)] for number in range(min(some, len(chosen)))]
    if save is not None:
        check_place(save / "ID.ops")
    page = None if write is None else _page(write)
    verdicts, out = list[Verdict](), console()
    table = Table("bug", "found", "rule", "operations", "seconds", "list", box=None)
    for verdict in hunt_bugs(chosen, seconds, hunts, jobs):
        verdicts.append(verdict)
        _row(table, verdict)
        if save is not None and verdict.finds and verdict.finds[0].story:
            write_file(save / f"{verdict.id}.ops", verdict.finds[0].story.encode())
        if write is not None and page is not None:  # each at once: it may be hours to the last
            page = with_rows(page, [verdict], _museum() | {verdict.id})
            write_file(write, page.encode())
    if json:
        print_json("shadowmmu.bugs/1", BugsReport(judges=judges_hash(), bugs=verdicts))
    else:
        out.print(table)
        for verdict in verdicts:
            if verdict.finds:
                out.print(Text(f"{verdict.id}: {verdict.finds[0].message}"))
                if show:
                    out.print(Text(verdict.finds[0].shown))
        excused = sum((Counter(hunt.excused) for verdict in verdicts for hunt in verdict.hunts), Counter[str]())
        if excused:
            out.print(draw_excused(excused))
        hunted = [verdict for verdict in verdicts if not verdict.unseen]
        out.print(f"judges {judges_hash()}: {sum(v.killed for v in hunted)} of {len(hunted)} found")
    unfit = [verdict.reason for verdict in verdicts if verdict.reason]
    if unfit:
        raise BadInput(f"{len(unfit)} of {len(verdicts)} cannot be put in, the first is {unfit[0]}")
    return int(not all(verdict.killed or verdict.unseen for verdict in verdicts))


def _museum() -> set[str]:
    return {path.stem for path in (checkout() / "bugs").glob("*.toml")}


def _page(path: Path) -> str:
    """The file with the table. Raises BadInput for what has none."""
    remedy = "name docs/bugs.md, or a file with such a table"
    text = read_file(path, OPERATIONS, str(path), remedy).decode(errors="replace")
    with parsing(str(path), remedy):
        with_rows(text, [], _museum())
    return text


def _row(table: Table, verdict: Verdict) -> None:
    finds = sorted(verdict.finds, key=lambda hunt: hunt.operations)
    middle = finds[len(finds) // 2] if finds else None
    shortest = min((len(hunt.smallest) for hunt in finds if hunt.smallest), default=0)
    table.add_row(
        Text(verdict.id),
        Text(verdict.reason or verdict.unseen) if verdict.reason or verdict.unseen else f"{len(finds)} of {len(verdict.hunts)}",
        ", ".join(sorted({hunt.rule for hunt in finds})) or "-",
        f"{middle.operations:,}" if middle else "-",
        f"{middle.seconds:.1f}" if middle else "-",
        str(shortest or "-"),
    )
