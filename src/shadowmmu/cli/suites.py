# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu run --suite`: the images of a suite that others wrote."""

from __future__ import annotations

from pathlib import Path

from shadowmmu.border.files import check_place, write_file
from shadowmmu.cli.output import console, print_json
from shadowmmu.errors import BadInput
from shadowmmu.runs.guest_run import Audit
from shadowmmu.runs.suite.entries import read_suite
from shadowmmu.runs.suite.junit import to_junit
from shadowmmu.runs.suite.run_suite import run_suite
from shadowmmu.view.draw_suite import draw_suite, image_line


def run_images(
    directory: Path,
    only: list[str],
    *,
    roots: str,
    kernel: str,
    audit: Audit,
    seconds: float | None,
    beside: Path | None,
    junit: Path | None,
    json: bool,
) -> int:
    """Run them and say how it went; the exit code."""
    suite, out = read_suite(directory), console()
    if junit is not None:
        check_place(junit)
    if beside is not None and not beside.is_dir():
        raise BadInput(f"{beside} is no directory; name one with the suite's logs, NAME.log, as its run_tests.sh leaves them")
    report = run_suite(
        suite,
        roots=roots,
        kernel=kernel,
        audit=audit,
        only=only,
        seconds=seconds,
        beside=beside,
        on_image=(lambda image: None) if json else lambda image: out.print(image_line(image)),
    )
    if junit is not None:
        write_file(junit, to_junit(report))
    if json:
        print_json("shadowmmu.run.suite/1", report)
    else:
        out.print(draw_suite(report))
    return int(not report.as_expected)
