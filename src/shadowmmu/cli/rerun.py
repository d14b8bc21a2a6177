# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu rerun`: the guests of captures run on the machine, and the MMU is compared with the real kernel's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from shadowmmu.captures.find import Found, find_all
from shadowmmu.captures.validate import undoable
from shadowmmu.check.rerun.driver import Rerun, not_rerun
from shadowmmu.check.rerun.result import Result
from shadowmmu.cli.output import console, print_json
from shadowmmu.cli.roots import Roots
from shadowmmu.errors import BadInput
from shadowmmu.view.draw_rerun import draw_results


class Reruns(msgspec.Struct):
    """`not_run`: captures that cannot be rerun here, and why."""

    results: list[Result]
    not_run: dict[str, str]


def rerun(
    *captures: str,
    kit: Path | None = None,
    every: Annotated[bool, Parameter(negative="", name="--all")] = False,
    roots: Roots | None = None,
    verbose: Annotated[bool, Parameter(negative="", name=("--verbose", "-v"))] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run the guests of captures as code on the machine, and compare what the MMU does with what Linux's own did.

    A replay gives the engine the recorded faults; here the emulated CPU raises them. What the captured CPU did otherwise than
    this one is done here too, and counted by class (docs/rerun.md). Exit code 1 if one diverges; it is then shown side by
    side with the kernel.

    Example: shadowmmu rerun shadow/p32_basic

    Parameters
    ----------
    captures
        Each a capture's file, a folder of such files, or among the captures that come with the source a set, a guest,
        or a pattern of set/guest. Without any: all that come with the source.
    kit
        A folder as the capture kit leaves it: captures/<set>/NAME.* beside guests/<set>/NAME.*. Then CAPTURES are sets,
        guests and patterns of set/guest in it; without any, all of it.
    every
        All of them, a line each.
    roots
        The captured kernel's own, if not given. With another root design what the guest says and is given is compared, and
        what every address maps to.
    verbose
        A line for each capture, not for each set.
    json
        Print the results as JSON.
    """
    found = find_all(captures, kit)
    results, left_out = _run_all(found, roots, quiet=json)
    if not results:
        name, why = next(iter(left_out.items()))
        raise BadInput(f"{name} cannot be rerun: {why}; shadowmmu replay {name} does it by the recorded faults")
    if json:
        print_json("shadowmmu.rerun/1", Reruns(results, left_out))
    else:
        console().print(draw_results(results, left_out, verbose or every or len(results) == 1))
    return int(not all(result.ok for result in results))


def _run_all(found: list[Found], roots: Roots | None, quiet: bool) -> tuple[list[Result], dict[str, str]]:
    """The results, and the captures that cannot be rerun with the reason of each."""
    out = console()
    results, left_out = [], {}
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=out, transient=True, disable=quiet or not out.is_terminal) as progress:
        task = progress.add_task("", total=len(found))
        for one in found:
            progress.update(task, description=one.name)
            capture = one.load()
            why = not_rerun(capture)
            if why:
                left_out[one.name] = why
            else:
                with undoable(one.argument):
                    results.append(Rerun(capture, roots).run())
            progress.advance(task)
    return results, left_out
