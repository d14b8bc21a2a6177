# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu compare`: one guest on several root designs."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.cli.guests import find_guest
from shadowmmu.cli.output import console, print_json
from shadowmmu.cli.roots import Roots
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.errors import BadInput
from shadowmmu.runs.compare import compare_designs
from shadowmmu.view.draw_differences import draw_comparison


def compare(
    guest: str = "pae",
    /,
    *,
    roots: Annotated[tuple[Roots, ...], Parameter(negative="")] = (),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run a guest on all root designs: what is equal, what differs, and why.

    Exit code 1 if the guest could tell them apart by its output, its exits or the events it was given, or a run broke off.

    Example: shadowmmu compare 2-level

    Example: shadowmmu compare pae --roots special --roots legacy

    Parameters
    ----------
    guest
        Name of a shipped guest, or path of a TOML description, a multiboot image or an ELF file.
    roots
        Compare these designs only: twice or more, each a name.
    json
        Print the comparison as JSON.
    """
    designs = tuple(dict.fromkeys(roots or ROOT_DESIGNS))
    if len(designs) < 2:
        raise BadInput(f"--roots {designs[0]}: one design alone is no comparison; name another with a second --roots, or leave it out")
    out = console()
    description = find_guest(guest)
    doing = Text(f"running {plain(description.name)} on {len(designs)} designs")
    with out.status(doing, spinner="dots") if out.is_terminal and not json else nullcontext():
        comparison = compare_designs(description, guest, designs)
    if json:
        print_json("shadowmmu.compare/1", comparison)
    else:
        out.print(f"{description.name}: {description.title}", style="bold")
        out.print(draw_comparison(comparison))
    return int(not comparison.alike)
