# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu step`: one exit of a guest, or some, with what the MMU did and its tables before and after."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from shadowmmu.cli.guests import find_guest
from shadowmmu.cli.output import console, print_json
from shadowmmu.cli.roots import Roots
from shadowmmu.errors import BadInput
from shadowmmu.runs.moments import Moment
from shadowmmu.runs.stepped import Steps, between, exit_of
from shadowmmu.view.draw_changes import draw_between


def step(
    guest: str = "pae",
    /,
    *,
    at: str = "first fault",
    count: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1000))] = 1,
    roots: Roots = "special",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Step through a guest's exits: what the MMU told at each, by which rule, and its tables before and after, side by side.

    Exit code 1 if the run broke off on the way.

    Example: shadowmmu step pae --at "first unsync" --count 3

    Example: shadowmmu step l1-pae --at "second root"

    Parameters
    ----------
    guest
        Name of a shipped guest, or path of a TOML description, a multiboot image or an ELF file.
    at
        The first exit: its number, or a moment as "first unsync of gfn 41d", "third root", "2nd CR write", "first zap of level 2".
    count
        How many exits.
    roots
        How roots without a guest table are made: a root design, see docs/special-pages.md.
    json
        Print everything as JSON.
    """
    found = find_guest(guest)
    (first,) = exit_of(found, guest, roots, [Moment(at)])
    steps = between(found, guest, roots, list(range(first - 1, first + count)))
    if not steps:
        raise BadInput(f"guest {guest} has no exit {first}: choose a lower --at")
    if json:
        print_json("shadowmmu.step/1", Steps(steps))
    else:
        for one in steps:
            console().print(draw_between(one))
    return int(any(one.broke for one in steps))
