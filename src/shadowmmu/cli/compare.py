# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu compare`: one guest on several root designs, on this engine and another, or on two kernels."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.status import Status
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.captures.find import Found, find
from shadowmmu.captures.validate import undoable
from shadowmmu.check.rerun.rerun import not_rerun
from shadowmmu.cli.guests import find_guest, guest_files, guest_path
from shadowmmu.cli.kernels import KernelName
from shadowmmu.cli.output import console, print_json
from shadowmmu.cli.roots import Roots
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.errors import BadInput
from shadowmmu.machine.loader import Guest
from shadowmmu.runs.captured_run import CapturedRun, events_of_step
from shadowmmu.runs.compare import compare_designs
from shadowmmu.runs.compare_engines import compare_engines
from shadowmmu.runs.compare_kernels import Subject, compare_kernels
from shadowmmu.runs.measured import events_of_exit, measure
from shadowmmu.runs.other_engine import other_engine
from shadowmmu.view.draw_differences import draw_comparison
from shadowmmu.view.draw_engines import draw_engines
from shadowmmu.view.draw_kernels import draw_kernels


def compare(
    guest: str = "pae",
    /,
    *,
    engine: str | None = None,
    kernel: Annotated[tuple[KernelName, ...], Parameter(negative="")] = (),
    trace: Path | None = None,
    roots: Annotated[tuple[Roots, ...], Parameter(negative="")] = (),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run a guest on all root designs, on this engine and one with a patch, or on two kernels: what differs, and why.

    Exit code 1 if the guest could tell them apart by its output, its exits or the events it was given, a run broke off, or the audit
    found something in an engine.

    Example: shadowmmu compare 2-level

    Example: shadowmmu compare pae --roots special --roots legacy

    Example: shadowmmu compare pae --engine ~/shadowmmu-with-my-patch

    Example: shadowmmu compare linux_7_3/pae_nowhere --kernel 6.1 --kernel 7.3

    Parameters
    ----------
    guest
        Name of a shipped guest, or path of a TOML description, a multiboot image or an ELF file. With two kernels also a capture, whose
        guest is then run as code.
    engine
        Another engine: a checkout with your patch, a unified diff of src/, or a bug of the museum. It is copied, and built where it
        changed.
    kernel
        Twice: compare these series of Linux, rule by rule. Once: the kernel on which designs or engines are compared.
    trace
        With --engine: file for the events of that engine, which shadowmmu explain takes.
    roots
        Compare these designs only: twice or more, each a name. With --engine or two kernels: the one design that both run.
    json
        Print the comparison as JSON.
    """
    out = console()
    if len(set(kernel)) > 1:
        return _kernels(out, guest, engine, kernel, roots, json)
    description, on = find_guest(guest), kernel[0] if kernel else DEFAULT_KERNEL
    if engine is not None:
        return _engines(out, description, guest, engine, roots, on, json, trace)
    if trace is not None:
        raise BadInput("--trace is for the events of another engine: name it with --engine, or use shadowmmu run --trace")
    designs = tuple(dict.fromkeys(roots or ROOT_DESIGNS))
    if len(designs) < 2:
        raise BadInput(f"--roots {designs[0]}: one design alone is no comparison; name another with a second --roots, or leave it out")
    with _doing(out, f"running {description.name} on {len(designs)} designs", json):
        comparison = compare_designs(description, guest, designs, on)
    if json:
        print_json("shadowmmu.compare/1", comparison)
    else:
        out.print(f"{description.name}: {description.title}", style="bold")
        out.print(draw_comparison(comparison))
    return int(not comparison.alike)


def _engines(
    out: Console, guest: Guest, named: str, engine: str, roots: tuple[str, ...], kernel: str, json: bool, trace: Path | None
) -> int:
    """This engine and another."""
    if len(roots) > 1:
        raise BadInput("--engine compares two engines on one root design: name one with --roots, or none for special roots")
    with _doing(out, f"building {engine}", json) as status, other_engine(engine, trace) as other:
        if isinstance(status, Status):
            status.update(Text(f"running {plain(guest.name)} on both engines"))
        comparison = compare_engines(guest, guest_path(named), named, other, roots[0] if roots else "special", kernel)
    if json:
        print_json("shadowmmu.compare.engines/1", comparison)
    else:
        out.print(f"{guest.name}: {guest.title}", style="bold")
        out.print(draw_engines(comparison))
    return int(not comparison.alike)


def _kernels(out: Console, named: str, engine: str | None, kernels: tuple[str, ...], roots: tuple[str, ...], json: bool) -> int:
    """Two kernels, rule by rule."""
    pair = tuple(dict.fromkeys(kernels))
    if len(pair) != 2 or engine is not None or len(roots) > 1:
        raise BadInput("--kernel compares two kernels, on one root design and this engine: name two, and leave out the rest")
    with _doing(out, f"running {named} on two kernels", json) as status:

        def on_rule(rule: str) -> None:
            if isinstance(status, Status):
                status.update(Text(f"running {plain(named)} without {rule}"))

        comparison = compare_kernels(_subject(named, roots), (pair[0], pair[1]), on_rule)
    if json:
        print_json("shadowmmu.compare.kernels/1", comparison)
    else:
        out.print(draw_kernels(comparison))
    return int(not comparison.alike)


def _subject(named: str, roots: tuple[str, ...]) -> Subject:
    """A guest, or else the guest of a capture."""
    if named not in guest_files() and (found := _captures(named)):
        capture = found[0].load()
        if len(found) > 1 or roots or (why := not_rerun(capture)):
            raise BadInput(f"{named}: " + (why if len(found) == 1 and not roots else "name one capture, without --roots"))
        with undoable(found[0].argument):
            return Subject(found[0].name, lambda kernel: CapturedRun(capture, kernel).run(), partial(events_of_step, capture))
    guest, design = find_guest(named), roots[0] if roots else "special"
    return Subject(
        guest.name,
        lambda kernel: measure(guest, named, design, kernel, audits=False),
        lambda kernel, number: events_of_exit(guest, named, design, kernel, number),
    )


def _captures(named: str) -> list[Found]:
    """Those that it names; none if it names a guest's file."""
    if named.endswith((".toml", ".img", ".elf")):
        return []
    try:
        return find(named)
    except BadInput:
        return []


def _doing(out: Console, what: str, quiet: bool) -> AbstractContextManager[Status | None]:
    """What takes its time, on a terminal."""
    return out.status(Text(plain(what)), spinner="dots") if out.is_terminal and not quiet else nullcontext()
