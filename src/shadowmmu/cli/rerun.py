# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu rerun`: the guests of captures run on the machine, and the MMU is compared with the real kernel's."""

from __future__ import annotations

import msgspec

from shadowmmu.captures.find import Found, find_all
from shadowmmu.captures.validate import undoable
from shadowmmu.check.rerun.rerun import Rerun, not_rerun
from shadowmmu.check.rerun.result import RerunResult
from shadowmmu.cli.chosen_captures import AsJson, Every, Kit, Verbose, Wanted, one_by_one
from shadowmmu.cli.output import console, print_json
from shadowmmu.cli.roots import Roots
from shadowmmu.errors import BadInput
from shadowmmu.view.draw_rerun import draw_results


class Reruns(msgspec.Struct):
    """`not_run`: captures that cannot be rerun here, and why."""

    results: list[RerunResult]
    not_run: dict[str, str]


def rerun(
    *captures: Wanted,
    kit: Kit = None,
    every: Every = False,
    roots: Roots | None = None,
    verbose: Verbose = False,
    json: AsJson = False,
) -> int:
    """Run the guests of captures as code on the machine, and compare what the MMU does with what Linux's own did.

    A replay gives the engine the recorded faults; here the emulated CPU raises them. What the captured CPU did otherwise than
    this one is done here too, and counted by class (docs/rerun.md). Exit code 1 if one diverges; it is then shown side by
    side with the kernel.

    Example: shadowmmu rerun shadow/p32_basic

    Parameters
    ----------
    roots
        The captured kernel's own, if not given. With another root design what the guest says and is given is compared, and
        what every address maps to.
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


def _run_all(found: list[Found], roots: Roots | None, quiet: bool) -> tuple[list[RerunResult], dict[str, str]]:
    """The results, and the captures that cannot be rerun with the reason of each."""
    results, left_out = [], {}
    with one_by_one(found, quiet) as turns:
        for one in turns:
            capture = one.load()
            why = not_rerun(capture)
            if why:
                left_out[one.name] = why
                continue
            with undoable(one.argument):
                results.append(Rerun(capture, roots).run())
    return results, left_out
