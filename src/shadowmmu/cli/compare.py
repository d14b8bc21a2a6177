# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu compare`: one guest, or list of operations, on several root designs, on this engine and another, or on two kernels."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.status import Status
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.captures.find import Found, find
from shadowmmu.check.rerun.rerun import not_rerun
from shadowmmu.cli.guests import find_guest, guest_files, guest_path
from shadowmmu.cli.kernels import KernelName
from shadowmmu.cli.output import console, print_json
from shadowmmu.cli.roots import Roots
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.errors import BadInput
from shadowmmu.runs.compare import DesignRun, compare_designs, run_guest, run_list
from shadowmmu.runs.compare_engines import compare_engines
from shadowmmu.runs.compare_kernels import compare_kernels
from shadowmmu.runs.operations_run import is_list
from shadowmmu.runs.other_engine import other_engine
from shadowmmu.runs.subject import CapturedSubject, GuestSubject, ListSubject, Subject
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
    """Run a guest, or a list of operations, on all root designs, on this engine and one with a patch, or on two kernels: what differs.

    Exit code 1 if the guest could tell them apart by its output, its exits or the events it was given, a run broke off, or the audit
    found something in an engine.

    Example: shadowmmu compare 2-level

    Example: shadowmmu compare pae --roots special --roots legacy

    Example: shadowmmu compare pae --engine ~/shadowmmu-with-my-patch

    Example: shadowmmu compare linux_7_3/pae_nowhere --kernel 6.1 --kernel 7.3

    Example: shadowmmu compare found.ops --engine ~/shadowmmu-with-my-patch

    Parameters
    ----------
    guest
        Name of a shipped guest, or path of a TOML description, a multiboot image or an ELF file; or of a list of operations that
        `shadowmmu fuzz --save` wrote. With two kernels also a capture, whose guest is then run as code.
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
    out, subject = console(), _subject(guest, with_captures=len(set(kernel)) > 1)
    if len(set(kernel)) > 1:
        return _kernels(out, subject, engine, kernel, roots, json)
    assert not isinstance(subject, CapturedSubject)
    on = kernel[0] if kernel else subject.kernel
    if engine is not None:
        return _engines(out, subject, engine, roots, on, json, trace)
    if trace is not None:
        raise BadInput("--trace is for the events of another engine: name it with --engine, or use shadowmmu run --trace")
    designs = tuple(dict.fromkeys(roots or ROOT_DESIGNS))
    if len(designs) < 2:
        raise BadInput(f"--roots {designs[0]}: one design alone is no comparison; name another with a second --roots, or leave it out")
    with _doing(out, f"running {subject.name} on {len(designs)} designs", json or isinstance(subject, ListSubject)):
        comparison = compare_designs(subject.name, {design: _on_design(subject, design, on) for design in designs})
    if json:
        print_json("shadowmmu.compare/1", comparison)
    else:
        out.print(plain(f"{subject.name}: {subject.title}"), style="bold")
        out.print(draw_comparison(comparison))
    return int(not comparison.alike)


def _on_design(subject: GuestSubject | ListSubject, design: str, kernel: str) -> DesignRun:
    if isinstance(subject, GuestSubject):
        return run_guest(subject.guest, subject.named, design, kernel)
    return run_list(subject.measure(design, kernel, audits=True))


def _engines(
    out: Console,
    subject: GuestSubject | ListSubject,
    engine: str,
    roots: tuple[str, ...],
    kernel: str,
    json: bool,
    trace: Path | None,
) -> int:
    """This engine and another."""
    if len(roots) > 1:
        raise BadInput("--engine compares two engines on one root design: name one with --roots, or none for special roots")
    if trace is not None and isinstance(subject, ListSubject):
        raise BadInput("--trace is for the events of a guest: name one, or leave --trace out")
    with _doing(out, f"trying {subject.name} on {engine}", json or isinstance(subject, ListSubject)), other_engine(engine, trace) as other:
        comparison = compare_engines(subject, other, roots[0] if roots else subject.roots, kernel)
    if json:
        print_json("shadowmmu.compare.engines/1", comparison)
    else:
        out.print(plain(f"{subject.name}: {subject.title}"), style="bold")
        out.print(draw_engines(comparison))
    return int(not comparison.alike)


def _kernels(out: Console, subject: Subject, engine: str | None, kernels: tuple[str, ...], roots: tuple[str, ...], json: bool) -> int:
    """Two kernels, rule by rule."""
    pair = tuple(dict.fromkeys(kernels))
    if len(pair) != 2 or engine is not None or len(roots) > 1:
        raise BadInput("--kernel compares two kernels, on one root design and this engine: name two, and leave out the rest")
    if roots and isinstance(subject, CapturedSubject):
        raise BadInput(f"{subject.name}: name one capture, without --roots")
    with _doing(out, f"running {subject.name} on two kernels", json or isinstance(subject, ListSubject)) as status:

        def on_rule(rule: str) -> None:
            if isinstance(status, Status):
                status.update(Text(f"running {plain(subject.name)} without {rule}"))

        comparison = compare_kernels(subject, roots[0] if roots else subject.roots, (pair[0], pair[1]), on_rule)
    if json:
        print_json("shadowmmu.compare.kernels/1", comparison)
    else:
        out.print(draw_kernels(comparison))
    return int(not comparison.alike)


def _subject(named: str, with_captures: bool) -> GuestSubject | ListSubject | CapturedSubject:
    """A guest, a list of operations, or the guest of a capture."""
    if named not in guest_files() and is_list(Path(named)):
        return ListSubject(Path(named))
    if with_captures and named not in guest_files() and (found := _captures(named)):
        capture = found[0].load()
        if len(found) > 1 or (why := not_rerun(capture)):
            raise BadInput(f"{named}: " + (why if len(found) == 1 else "name one capture, without --roots"))
        return CapturedSubject(found[0].argument, capture)
    return GuestSubject(find_guest(named), guest_path(named), named)


def _captures(named: str) -> list[Found]:
    """Those that it names; none if it names a guest's file."""
    if named.endswith((".toml", ".img", ".elf")):
        return []
    try:
        return find(named)
    except BadInput:
        return []


def _doing(out: Console, what: str, quiet: bool) -> AbstractContextManager[Status | None]:
    """What takes its time, on a terminal; it is a thread, and a list of operations runs in a process that is forked."""
    return out.status(Text(plain(what)), spinner="dots") if out.is_terminal and not quiet else nullcontext()
