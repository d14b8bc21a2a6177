# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu tests`: what exercises a file or a function of the engine."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from shadowmmu.cli.output import console, print_json
from shadowmmu.runs.exercised.best import exercised
from shadowmmu.runs.exercised.record import read_record
from shadowmmu.view.draw_exercised import draw_exercised


def tests(
    file: str,
    /,
    *files: str,
    most: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 5,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Tell which guests, captures, known bugs and tests exercise a file or a function of the engine, the best first.

    Best is what runs through most of its parts, the pieces of code between two jumps, and then what comes there soonest. All of it was
    recorded from runs of each; captures, bugs and tests come with a checkout.

    Example: shadowmmu tests roots.py:fast_pgd_switch

    Parameters
    ----------
    file
        A file of the engine, FILE:FUNCTION, a function's name, or a patch: a diff of src/, or a known bug's TOML.
    files
        More of them: what exercises all of these.
    most
        How many of each kind.
    json
        Print it as JSON.
    """
    answer = exercised((file, *files), read_record(), most)
    if json:
        print_json("shadowmmu.tests/1", answer)
    else:
        console().print(draw_exercised(answer))
    return 0
