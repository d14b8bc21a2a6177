# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu captures`: what there is to replay and to rerun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from shadowmmu.captures.capture import Capture, Setup
from shadowmmu.captures.find import find_all
from shadowmmu.cli.output import console, print_json
from shadowmmu.look.picture import MODES
from shadowmmu.look.root_chain import Paging, RootPicture, picture, shadow_paging
from shadowmmu.view.draw_lists import draw_captures, draw_sets
from shadowmmu.x86.control import paging_levels


class ListedCapture(msgspec.Struct, kw_only=True):
    """A capture: what its guest does, on which host, and the root that is shadowed for it at first."""

    name: str
    description: str
    host: str
    kernel: str
    events: int
    operations: int
    root: RootPicture


class Captures(msgspec.Struct):
    captures: list[ListedCapture]


def captures(
    *names: str,
    kit: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """List captures of the real kernel's MMU: sets, or with names each capture of a set, with the root that is shadowed.

    What is listed is what replay and rerun take. Captures of your own are made by the kit (capture/README.md).

    Example: shadowmmu captures shadow

    Parameters
    ----------
    names
        Sets, guests, patterns of set/guest, files or folders, as replay has them. Without any: a line for each set.
    kit
        A folder as the capture kit leaves it, to list what is in it.
    json
        Print the list as JSON, a capture an entry.
    """
    listed = Captures([_listed(one.name, one.load()) for one in find_all(names, kit)])
    if json:
        print_json("shadowmmu.captures/1", listed)
    else:
        console().print(draw_captures(listed.captures) if names else draw_sets(listed.captures))
    return 0


def _listed(name: str, capture: Capture) -> ListedCapture:
    guest, setup = capture.guest, capture.setup
    return ListedCapture(
        name=name,
        description=guest.desc,
        host=_host(setup),
        kernel=setup.kernel,
        events=len(capture.events),
        operations=len(guest.ops) + len(guest.l2_ops),
        root=_root(capture),
    )


def _host(setup: Setup) -> str:
    """How the captured host maps what it runs."""
    if not setup.npt:
        return f"shadow paging, {setup.host_levels} levels"
    return f"NPT, {'TDP MMU' if setup.tdp_mmu else 'direct tables'}, {setup.host_levels} levels"


def _root(capture: Capture) -> RootPicture:
    """Of the guest as it starts. On nested paging L1 has direct tables, and what is shadowed are the nested tables of its mode."""
    state, host = capture.guest.entry_state, capture.setup
    levels = paging_levels(*(state.get(name, 0) for name in ("cr0", "cr4", "efer")))
    if not host.npt:
        return picture(f"{MODES[levels]} guest", shadow_paging(levels))
    if not capture.guest.l2_ops:
        return picture("direct tables", Paging(host.host_levels, host.host_levels))
    return picture(f"L2 on {MODES[levels]} nested tables", Paging(levels, host.host_levels))
