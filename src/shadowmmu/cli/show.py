# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu show`: the shadow tables of a guest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter, Token
from msgspec import UNSET, UnsetType

from shadowmmu.cli.guests import find_guest
from shadowmmu.cli.output import console, print_json
from shadowmmu.cli.roots import Roots
from shadowmmu.errors import BadInput
from shadowmmu.look.address import AddressPicture, follow_address
from shadowmmu.look.picture import Picture, take_picture
from shadowmmu.look.reverse import ReverseMap, reverse_maps
from shadowmmu.machine.loader import Guest
from shadowmmu.machine.machine import Machine
from shadowmmu.runs.guest_run import GuestRun, RunReport
from shadowmmu.runs.moments import Moment
from shadowmmu.runs.stepped import Steps, between, exit_of
from shadowmmu.view.draw_address import draw_address
from shadowmmu.view.draw_changes import draw_between
from shadowmmu.view.draw_picture import draw_picture
from shadowmmu.view.draw_reverse import draw_reverse


def read_address(_: Any, tokens: Sequence[Token]) -> int:
    """An address as people write it. Raises BadInput for anything else."""
    word = tokens[0].value
    try:
        return int(word, 0)
    except ValueError:
        raise BadInput(f"--address {word}: not an address; write 0x and hexadecimal digits, as 0x1900000") from None


class Shown(msgspec.Struct, kw_only=True):
    """What a guest left after exit number `exit`; `broke`: what ended the run before, if anything did.

    `picture`: all tables; or `addresses`: the way of one address, for each vCPU. `rmaps`: the reverse maps, if they were asked for.
    """

    exit: int
    broke: str
    picture: Picture | UnsetType = UNSET
    addresses: list[AddressPicture] | UnsetType = UNSET
    rmaps: list[ReverseMap] | UnsetType = UNSET


def show(
    guest: str = "pae",
    /,
    *,
    at: str | None = None,
    diff: Annotated[tuple[str, str] | None, Parameter(negative="")] = None,
    l2: Annotated[bool, Parameter(negative="")] = False,
    address: Annotated[int | None, Parameter(converter=read_address)] = None,
    roots: Roots = "special",
    root_only: Annotated[bool, Parameter(negative="")] = False,
    rmaps: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run a guest, then draw its root and all tables below it, the guest's entries beside the shadow's.

    A hypervisor (L1) has two MMUs: the root MMU for itself, the guest MMU for an L2 on its nested tables. Both are drawn.

    Exit code 1 if the run broke off on the way; what it left is drawn.

    Example: shadowmmu show pae --at 5000

    Example: shadowmmu show pae --at "first unsync of gfn 41d"

    Example: shadowmmu show pae --diff "third root" 5000

    Example: shadowmmu show l1-pae --at 500 --l2 --address 0x1900000

    Parameters
    ----------
    guest
        Name of a shipped guest, or path of a TOML description, a multiboot image or an ELF file.
    at
        The exit to stop after: its number, or a moment as "first unsync of gfn 41d", "third root", "2nd CR write", "first zap of
        level 2"; without it the guest runs to its end.
    diff
        Two such moments: what changed in the tables from one to the other, before and after side by side.
    l2
        Go on from there, or from the start, to the next exit at which an L2 runs.
    address
        Follow this virtual address of what runs then, through its own tables, nested tables and the shadow, to host memory,
        instead of drawing all tables: 0x and hexadecimal digits, or decimal.
    roots
        How roots without a guest table are made: a root design, see docs/special-pages.md.
    root_only
        Draw the root and what hangs directly below it.
    rmaps
        List the reverse maps too: for each guest page the entries that map it.
    json
        Print everything as JSON.
    """
    found = find_guest(guest)
    if diff is not None:
        return _diff(found, guest, roots, diff, json)
    run = GuestRun(found, guest, roots=roots)
    number = (
        None if at is None else int(at) if at.isdecimal() and len(at) < 12 and int(at) else exit_of(found, guest, roots, [Moment(at)])[0]
    )
    report = _run_to(run, number, l2)
    vm = run.machine.vm
    shown = Shown(exit=report.exits, broke=report.broke)
    if address is None:
        shown.picture = take_picture(vm)
    else:
        shown.addresses = [follow_address(vcpu, address) for vcpu in vm.vcpus]
    if rmaps:
        shown.rmaps = reverse_maps(vm)
    if json:
        print_json("shadowmmu.show/1", shown)
    else:
        _draw(run.guest.name, shown, root_only)
    return int(bool(report.broke))


def _diff(guest: Guest, named: str, roots: str, moments: tuple[str, str], json: bool) -> int:
    exits = exit_of(guest, named, roots, [Moment(moment) for moment in moments])
    if exits[0] >= exits[1]:
        raise BadInput(f"--diff {' '.join(moments)}: exit {exits[1]} is not behind exit {exits[0]}: name the earlier moment first")
    (told,) = between(guest, named, roots, exits)
    if json:
        print_json("shadowmmu.step/1", Steps([told]))
    else:
        told.events = []  # of its last exit, which is not what was asked for
        console().print(draw_between(told))
    return int(bool(told.broke))


def _run_to(run: GuestRun, at: int | None, l2: bool) -> RunReport:
    """Run to exit `at`, then, for `l2`, to the next exit at which an L2 has a root. Raises BadInput if that does not come."""
    name = run.named

    def l2_runs(machine: Machine) -> bool:
        return machine.exits >= (at or 0) and any(vcpu.guest_mode and vcpu.root is not None for vcpu in machine.vm.vcpus)

    if l2 and "svm" not in run.guest.features:
        raise BadInput(f"guest {name} runs no L2, its CPU has no SVM: choose a hypervisor, such as l1-pae, or leave --l2 out")
    report = run.run(None if l2 else at, until=l2_runs if l2 else None)
    if at is not None and report.exits < at and not report.broke:
        raise BadInput(f"guest {name} ended after {report.exits} exits, before exit {at}: choose a lower --at, or leave it out")
    if l2 and report.result is not None:
        raise BadInput(f"guest {name} ended after {report.exits} exits, and no L2 ran from exit {at or 1} on: choose a lower --at")
    return report


def _draw(name: str, shown: Shown, root_only: bool) -> None:
    out = console()
    out.print(f"guest {name} after {shown.exit:,} exits", style="dim")
    if shown.broke:
        out.print(shown.broke, style="red")
    if shown.picture is not UNSET:
        out.print(draw_picture(shown.picture, root_only))
    if shown.addresses is not UNSET:
        for picture in shown.addresses:
            out.print(draw_address(picture))
    if shown.rmaps is not UNSET:
        out.print("\nreverse maps", style="bold")
        out.print(draw_reverse(shown.rmaps))
