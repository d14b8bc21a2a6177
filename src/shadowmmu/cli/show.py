"""`shadowmmu show`: the shadow tables of a guest."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from shadowmmu.cli.guests import find_guest
from shadowmmu.cli.output import console, print_json
from shadowmmu.errors import BadInput
from shadowmmu.view.draw_picture import draw_picture
from shadowmmu.view.draw_reverse import draw_reverse
from shadowmmu.view.picture import take_picture
from shadowmmu.view.report import GuestRun, Roots
from shadowmmu.view.reverse import reverse_maps


def show(
    guest: str = "pae",
    /,
    *,
    at: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    roots: Roots = "special",
    root_only: Annotated[bool, Parameter(negative="")] = False,
    rmaps: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run a guest, then draw its root and all tables below it, the guest's entries beside the shadow's.

    Exit code 1 if the run broke off on the way; what it left is drawn.

    Example: shadowmmu show pae --at 5000

    Parameters
    ----------
    guest
        Name of a shipped guest, or path of a TOML description, a multiboot image or an ELF file.
    at
        Number of the exit to stop after; without it the guest runs to its end.
    roots
        How roots without a guest table are made: special shadow pages, or the bare tables of today's kernel.
    root_only
        Draw the root and what hangs directly below it.
    rmaps
        List the reverse maps too: for each guest page the entries that map it.
    json
        Print everything as JSON.
    """
    run = GuestRun(find_guest(guest), guest, roots=roots)
    report = run.run(at)
    if at is not None and report.exits < at and not report.broke:
        raise BadInput(f"guest {guest} ended after {report.exits} exits, before exit {at}: choose a lower --at, or leave it out")
    vm = run.machine.vm
    picture = take_picture(vm)
    reverse = reverse_maps(vm) if rmaps else None
    if json:
        print_json({"exit": report.exits, "broke": report.broke, "picture": picture, **({} if reverse is None else {"rmaps": reverse})})
        return int(bool(report.broke))
    out = console()
    out.print(f"guest {run.guest.name} after {report.exits:,} exits", style="dim")
    if report.broke:
        out.print(report.broke, style="red")
    out.print(draw_picture(picture, root_only))
    if reverse is not None:
        out.print("\nreverse maps", style="bold")
        out.print(draw_reverse(reverse))
    return int(bool(report.broke))
