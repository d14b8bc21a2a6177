# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu compare`: one guest on several root designs, or on this engine and another."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.status import Status
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.cli.guests import find_guest, guest_path
from shadowmmu.cli.output import console, print_json
from shadowmmu.cli.roots import Roots
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.errors import BadInput
from shadowmmu.machine.loader import Guest
from shadowmmu.runs.compare import compare_designs
from shadowmmu.runs.compare_engines import compare_engines
from shadowmmu.runs.other_engine import other_engine
from shadowmmu.view.draw_differences import draw_comparison
from shadowmmu.view.draw_engines import draw_engines


def compare(
    guest: str = "pae",
    /,
    *,
    engine: str | None = None,
    roots: Annotated[tuple[Roots, ...], Parameter(negative="")] = (),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run a guest on all root designs, or on this engine and one with a patch: what is equal, what differs, and why.

    Exit code 1 if the guest could tell them apart by its output, its exits or the events it was given, a run broke off, or the audit
    found something in an engine.

    Example: shadowmmu compare 2-level

    Example: shadowmmu compare pae --roots special --roots legacy

    Example: shadowmmu compare pae --engine ~/shadowmmu-with-my-patch

    Parameters
    ----------
    guest
        Name of a shipped guest, or path of a TOML description, a multiboot image or an ELF file.
    engine
        Another engine: a checkout with your patch, a unified diff of src/, or a bug of the museum. It is copied, and built where it
        changed.
    roots
        Compare these designs only: twice or more, each a name. With --engine: the one design that both run.
    json
        Print the comparison as JSON.
    """
    out = console()
    description = find_guest(guest)
    if engine is not None:
        return _engines(out, description, guest, engine, roots, json)
    designs = tuple(dict.fromkeys(roots or ROOT_DESIGNS))
    if len(designs) < 2:
        raise BadInput(f"--roots {designs[0]}: one design alone is no comparison; name another with a second --roots, or leave it out")
    with _doing(out, f"running {description.name} on {len(designs)} designs", json):
        comparison = compare_designs(description, guest, designs)
    if json:
        print_json("shadowmmu.compare/1", comparison)
    else:
        out.print(f"{description.name}: {description.title}", style="bold")
        out.print(draw_comparison(comparison))
    return int(not comparison.alike)


def _engines(out: Console, guest: Guest, named: str, engine: str, roots: tuple[str, ...], json: bool) -> int:
    """This engine and another."""
    if len(roots) > 1:
        raise BadInput("--engine compares two engines on one root design: name one with --roots, or none for special roots")
    with _doing(out, f"building {engine}", json) as status, other_engine(engine) as other:
        if isinstance(status, Status):
            status.update(Text(f"running {plain(guest.name)} on both engines"))
        comparison = compare_engines(guest, guest_path(named), named, other, roots[0] if roots else "special", DEFAULT_KERNEL)
    if json:
        print_json("shadowmmu.compare.engines/1", comparison)
    else:
        out.print(f"{guest.name}: {guest.title}", style="bold")
        out.print(draw_engines(comparison))
    return int(not comparison.alike)


def _doing(out: Console, what: str, quiet: bool) -> AbstractContextManager[Status | None]:
    """What takes its time, on a terminal."""
    return out.status(Text(plain(what)), spinner="dots") if out.is_terminal and not quiet else nullcontext()
