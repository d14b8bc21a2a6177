# SPDX-License-Identifier: GPL-2.0-only
"""Draws a suite's report: an image a line as it ends, then the table, and why those did not pass that did not."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.runs.suite.run_suite import Image, SuiteReport

_STYLES = {"PASS": "green", "FAIL": "bold red", "SKIP": "yellow"}
_SHOWN = 12
"""Sub-tests of one image that are named."""


def image_line(image: Image) -> Text:
    """As the suite's own scripts print it."""
    counts = f" ({len(image.tests)} tests, {failures(image)} failures)" if image.tests else ""
    return Text.assemble((image.outcome, _STYLES[image.outcome]), f" {plain(image.name)}{counts}", f" {plain(image.reason)}".rstrip())


def failures(image: Image) -> int:
    """Sub-tests that failed."""
    return sum(test.failed for test in image.tests)


def draw_suite(report: SuiteReport) -> RenderableType:
    table = Table("image", "outcome", "pass", "fail", "skip", "exits", "ms", box=None, padding=(0, 1, 0, 0), header_style="bold")
    for column in table.columns[2:]:
        column.justify = "right"
    for image in report.images:
        numbers = (image.count("PASS"), failures(image), image.count("SKIP"), image.exits, round(image.milliseconds))
        table.add_row(plain(image.name), Text(image.outcome, _STYLES[image.outcome]), *(f"{number:,}" for number in numbers))
    return Group(table, Text(), *_reasons(report), _totals(report))


def _reasons(report: SuiteReport) -> Iterator[Text]:
    for image in report.images:
        if image.outcome == "PASS" and not failures(image):
            continue
        yield Text(f"{plain(image.name)}: {plain(image.reason) or 'some of its tests failed'}")
        bad = [test for test in image.tests if test.failed]
        for test in bad[:_SHOWN]:
            yield Text(f"    {test.verdict} {plain(': '.join((test.name, *image.known_of(test.name))))}")
        if len(bad) > _SHOWN:
            yield Text(f"    and {len(bad) - _SHOWN} more")


def _totals(report: SuiteReport) -> Text:
    images, tests = report.images, [test for image in report.images for test in image.tests]
    words = ", ".join(f"{sum(image.outcome == outcome for image in images)} {outcome}" for outcome in _STYLES)
    passed, failed = sum(test.verdict == "PASS" for test in tests), sum(test.failed for test in tests)
    mark, style = ("✔", "bold green") if report.as_expected else ("✘", "bold red")
    return Text.assemble((f"{mark} {report.roots} roots", style), f": images {words}; their tests {passed:,} PASS, {failed:,} FAIL")
