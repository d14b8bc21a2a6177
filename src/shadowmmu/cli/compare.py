"""`shadowmmu compare`: one guest on both root designs."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

from cyclopts import Parameter

from shadowmmu.cli.guests import find_guest
from shadowmmu.cli.output import console, print_json
from shadowmmu.runs.compare import compare_designs
from shadowmmu.view.draw_differences import draw_comparison


def compare(guest: str = "pae", /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Run a guest on special and on legacy roots: what is equal, what differs, and why.

    Exit code 1 if the guest could tell the two apart by its output, its exits or the events it was given, or a run broke off.

    Example: shadowmmu compare 2-level

    Parameters
    ----------
    guest
        Name of a shipped guest, or path of a TOML description, a multiboot image or an ELF file.
    json
        Print the comparison as JSON.
    """
    out = console()
    description = find_guest(guest)
    with out.status(f"running {description.name} on both designs", spinner="dots") if out.is_terminal and not json else nullcontext():
        comparison = compare_designs(description, guest)
    if json:
        print_json(comparison)
    else:
        out.print(f"{description.name}: {description.title}", style="bold")
        out.print(draw_comparison(comparison))
    return int(not comparison.alike)
