# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu fuzz`: random operations, judged by the oracle and the audit."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import Parameter, validators
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shadowmmu.check.fuzz import MODES, shrink
from shadowmmu.check.fuzz import fuzz as run_fuzz
from shadowmmu.cli.kernels import KernelName
from shadowmmu.cli.output import console, print_json
from shadowmmu.cli.roots import Roots
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.errors import BadInput
from shadowmmu.runs.fuzz_report import fuzz_report
from shadowmmu.view.draw_fuzz import draw_fuzz


def fuzz(
    *,
    seed: int = 0,
    operations: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 30_000,
    roots: Roots = "special",
    kernel: KernelName = DEFAULT_KERNEL,
    modes: str = ",".join(MODES),
    audit_every: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 1,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Do random operations on random guests; the virtual TLB oracle and the audit judge each of them.

    Two vCPUs change their tables, registers, memslots and modes while they use them. The same arguments do the same
    operations. Exit code 1 if something was violated; then the command that shows it again is printed.

    Example: shadowmmu fuzz --seed 7 --operations 100000 --modes pae,2-level

    Parameters
    ----------
    seed
        Where the random numbers begin.
    operations
        How many operations to do.
    roots
        How roots without a guest table are made: a root design, see docs/special-pages.md.
    kernel
        Whose shadow MMU it is: a series of Linux, see docs/kernels.md.
    modes
        Paging modes of the guests, separated by commas.
    audit_every
        Audit after every so many operations; 0 does not audit.
    json
        Print the report as JSON.
    """
    chosen = tuple(modes.split(","))
    unknown = [mode for mode in chosen if mode not in MODES]
    if unknown:
        raise BadInput(f"--modes: there is no mode {unknown[0]!r}; choose from {', '.join(MODES)}, separated by commas")
    out = console()
    start = time.monotonic()
    with Progress(
        TextColumn("{task.completed:,.0f} operations"),
        BarColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        disable=json or not out.is_terminal,
    ) as progress:
        task = progress.add_task("", total=operations)
        report = run_fuzz(
            seed,
            operations,
            chosen,
            roots,
            audit_every,
            lambda done: progress.update(task, completed=done.operations),
            kernel=kernel,
        )
        smallest = None if report.failure is None else shrink(report.failure)
    result = fuzz_report(report, smallest)
    if json:
        print_json("shadowmmu.fuzz/1", result)
    else:
        out.print(draw_fuzz(result, time.monotonic() - start))
    return int(report.failure is not None)
