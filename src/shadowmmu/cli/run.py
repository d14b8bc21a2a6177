# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu run`: a guest on the shadow MMU."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from shadowmmu.cli.guests import find_guest
from shadowmmu.cli.kernels import KernelName
from shadowmmu.cli.output import console, print_json
from shadowmmu.cli.roots import Roots
from shadowmmu.cli.suites import run_images
from shadowmmu.engine.face.kernels import DEFAULT_KERNEL
from shadowmmu.machine.devices.clock import TICKS_PER_SECOND
from shadowmmu.runs.event_log import EventLog
from shadowmmu.runs.guest_run import Audit, GuestRun
from shadowmmu.view.draw_report import draw_report
from shadowmmu.view.live import LiveRun

Count = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]
Seconds = Annotated[float | None, Parameter(validator=validators.Number(gt=0, lte=1_000_000))]


def run(
    guest: str = "pae",
    /,
    *,
    roots: Roots = "special",
    kernel: KernelName = DEFAULT_KERNEL,
    audit: Audit | None = None,
    trace: Path | None = None,
    max_exits: Count = None,
    suite: Path | None = None,
    only: Annotated[list[str], Parameter(consume_multiple=True)] | None = None,
    seconds: Seconds = None,
    beside: Path | None = None,
    junit: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run a guest on the shadow MMU and say how it went.

    Exit code 0 if the guest passed and every audit did; 1 if not; 2 if the guest cannot be loaded.

    Example: shadowmmu run adversary --roots legacy

    Parameters
    ----------
    guest
        Name of a shipped guest, or path of a TOML description, a multiboot image or an ELF file.
    roots
        How roots without a guest table are made: a root design, see docs/special-pages.md.
    kernel
        Whose shadow MMU it is: a series of Linux, see docs/kernels.md.
    audit
        Check every structure of the MMU: after every exit of the guest (an entry that nothing names: after one of 64, and at the end),
        once when the guest has ended, or not at all. By default after every exit;
        of a suite once an image.
    trace
        File for the events of the MMU, an event a line under the exit that caused it. A pipe must be read.
    max_exits
        Stop after this many exits; then that is no failure.
    suite
        Instead of a guest, run the images of a built tree of kvm-unit-tests, see docs/suite.md.
    only
        Of a suite: the entries to run, by their names in x86/unittests.cfg.
    seconds
        Virtual seconds that the guest may take; of a suite, each image instead of its own timeout.
    beside
        Of a suite: directory of its own logs of another run, as on KVM; what became there of the tests that fail here is told beside.
    junit
        Of a suite: file for the report as JUnit XML.
    json
        Print the report as JSON, and not the guest's output as it comes.
    """
    if suite is not None:
        return run_images(
            suite, only or [], roots=roots, kernel=kernel, audit=audit or "exit", seconds=seconds, beside=beside, junit=junit, json=json
        )
    audit = audit or "every"
    description = find_guest(guest)
    out = console()
    live = LiveRun(out)
    ticks = None if seconds is None else int(seconds * TICKS_PER_SECOND)
    with ExitStack() as stack:
        log = None if trace is None else stack.enter_context(EventLog(trace))
        if json:
            machine = GuestRun(description, guest, roots=roots, kernel=kernel, audit=audit, log=log)
            report = machine.run(max_exits, max_ticks=ticks)
            print_json("shadowmmu.run/1", report)
            return int(not report.as_expected)
        machine = GuestRun(
            description, guest, roots=roots, kernel=kernel, audit=audit, log=log, on_output=live.on_output, on_look=live.on_look
        )
        out.print(f"{description.name}: {description.title} · {roots} roots", style="bold")
        with live:
            report = machine.run(max_exits, max_ticks=ticks)
    out.print(draw_report(report, live.seconds))
    return int(not report.as_expected)
