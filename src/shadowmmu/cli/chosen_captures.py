# SPDX-License-Identifier: GPL-2.0-only
"""What `replay` and `rerun` have in common: the options that choose captures and how they are told, and the progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from shadowmmu.captures.find import Found
from shadowmmu.cli.output import console

Wanted = Annotated[
    str,
    Parameter(
        help="Each a capture's file, a folder of such files, or among the captures that come with the source a set, a guest, or a "
        "pattern of set/guest. Without any: all that come with the source."
    ),
]
Kit = Annotated[
    Path | None,
    Parameter(
        help="A folder as the capture kit leaves it: captures/<set>/NAME.* beside guests/<set>/NAME.*. Then CAPTURES are sets, guests "
        "and patterns of set/guest in it; without any, all of it."
    ),
]
Every = Annotated[bool, Parameter(negative="", name="--all", help="All of them, a line each.")]
Verbose = Annotated[bool, Parameter(negative="", name=("--verbose", "-v"), help="A line for each capture, not for each set.")]
AsJson = Annotated[bool, Parameter(negative="", help="Print the results as JSON.")]


@contextmanager
def one_by_one(found: Sequence[Found], quiet: bool) -> Iterator[Iterator[Found]]:
    """The captures in turn, with a bar on a terminal that says how far it is."""
    out = console()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=out, transient=True, disable=quiet or not out.is_terminal) as progress:
        yield _turns(found, progress)


def _turns(found: Sequence[Found], progress: Progress) -> Iterator[Found]:
    task = progress.add_task("", total=len(found))
    for one in found:
        progress.update(task, description=one.name)
        yield one
        progress.advance(task)
