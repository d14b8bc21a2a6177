# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu fuzz`: random operations, judged by the oracle and the audit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shadowmmu.border.files import check_place, parsing, write_file
from shadowmmu.check.fuzz import MODES, Report, Setup, check_kernel, fuzz_apart, fuzz_kept, replay_apart, shrink_apart, write_story
from shadowmmu.cli.output import console, print_json
from shadowmmu.cli.roots import AnyRoots
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.errors import BadInput
from shadowmmu.runs.fuzz_report import fuzz_report
from shadowmmu.runs.operations_run import read_list
from shadowmmu.view.draw_fuzz import draw_fuzz


class Number(int):
    """One that nobody gave: a default."""


class Word(str):
    """Likewise."""

    __slots__ = ()


def fuzz(
    *,
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0, lt=1 << 64))] = Number(0),
    operations: Annotated[int, Parameter(validator=validators.Number(gte=1))] = Number(30_000),
    roots: AnyRoots = Word("special"),
    kernel: str = Word(DEFAULT_KERNEL),
    modes: str = Word(",".join(MODES)),
    audit_every: Annotated[int, Parameter(validator=validators.Number(gte=0))] = Number(1),
    seconds: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    jobs: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=64))] = Number(1),
    corpus: Path | None = None,
    ops: Path | None = None,
    save: Path | None = None,
    runs: Annotated[int, Parameter(name="--shrink", validator=validators.Number(gte=0))] = 400,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Do random operations on random guests; the virtual TLB oracle and the audit judge each of them.

    Two vCPUs change their tables, registers, memslots and modes while they use them. The same arguments do the same
    operations. Exit code 1 if something was violated, or the engine crashed: then a shorter list of operations and the command
    that shows it again are printed.

    Example: shadowmmu fuzz --seed 7 --operations 100000 --modes pae,2-level --save found.ops

    Parameters
    ----------
    seed
        Where the random numbers begin.
    operations
        How many operations to do.
    roots
        How roots without a guest table are made: a root design, see docs/special-pages.md; any: now this, now that.
    kernel
        Whose shadow MMU it is: a series of Linux, see docs/kernels.md, with +RULE or -RULE behind it for a rule changed; any: now
        this, now that.
    modes
        Paging modes of the guests, separated by commas.
    audit_every
        Audit after every so many operations; 0 does not audit.
    seconds
        End after so long.
    jobs
        In how many processes; they do the same operations as one would.
    corpus
        A folder of lists that reach what no other list reaches: they are run first, then random operations from where the last run
        ended, which add to it.
    ops
        Do the operations of this file, which `--save` wrote, instead of random ones. It says itself on what: none of the above goes
        with it.
    save
        Write the shorter list of a violation to this file; each line says what it does.
    runs
        In how many replays the list of a violation is made shorter.
    json
        Print the report as JSON.
    """
    out, start = console(), time.monotonic()
    if save is not None:
        check_place(save)
    if corpus is not None and jobs > 1:
        raise BadInput("--jobs does not go with --corpus, to which one process adds: leave one of them out")
    with parsing("--kernel", "see docs/kernels.md"):
        check_kernel(kernel)
    if ops is not None:
        _refuse_beside_ops(
            seed=seed, operations=operations, roots=roots, kernel=kernel, modes=modes, audit_every=audit_every, jobs=jobs, seconds=seconds,
            corpus=corpus,
        )  # fmt: skip
        report = _again(ops)
    else:
        setup = Setup(int(seed), str(roots), _modes(modes), int(audit_every), str(kernel))
        report = _search(setup, int(operations), seconds, int(jobs), corpus, quiet=json)
    smallest = None if report.failure is None else shrink_apart(report.failure, runs)
    if save is not None and smallest is not None:
        write_file(save, write_story(smallest.setup, smallest.operations, smallest.message).encode())
    result = fuzz_report(report, smallest)
    if json:
        print_json("shadowmmu.fuzz/1", result)
    else:
        out.print(draw_fuzz(result, time.monotonic() - start))
    return int(report.failure is not None)


def _modes(modes: str) -> tuple[str, ...]:
    chosen = tuple(modes.split(","))
    unknown = [mode for mode in chosen if mode not in MODES]
    if unknown:
        raise BadInput(f"--modes: there is no mode {unknown[0]!r}; choose from {', '.join(MODES)}, separated by commas")
    return chosen


def _refuse_beside_ops(**options: int | str | Path | None) -> None:
    """A file's operations are done as it says itself."""
    given = [name for name, value in options.items() if value is not None and not isinstance(value, Number | Word)]
    if given:
        raise BadInput(f"--{given[0].replace('_', '-')} does not go with --ops, whose file says what is done, and on what: leave it out")


def _again(path: Path) -> Report:
    """The operations of a file, once."""
    setup, operations = read_list(path)
    failure = replay_apart(setup, operations)
    return Report(len(failure.operations) if failure else len(operations), 1, failure=failure)


def _search(setup: Setup, operations: int, seconds: int | None, jobs: int, corpus: Path | None, *, quiet: bool) -> Report:
    out = console()
    with Progress(
        TextColumn("{task.completed:,.0f} operations"),
        BarColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        auto_refresh=False,  # no thread beside the process that is forked
        disable=quiet or not out.is_terminal,
    ) as progress:
        task = progress.add_task("", total=operations)

        def told(done: Report) -> None:
            progress.update(task, completed=done.operations, refresh=True)

        if corpus is not None:
            return fuzz_kept(corpus, setup, operations, told, seconds)
        return fuzz_apart(setup, operations, told, seconds, jobs)
