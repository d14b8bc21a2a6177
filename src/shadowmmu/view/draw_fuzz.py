# SPDX-License-Identifier: GPL-2.0-only
"""Draws a `FuzzReport`: the verdict, the coverage table, the failure."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shadowmmu.runs.fuzz_report import Found, FuzzReport
from shadowmmu.view.draw_address import draw_address

NO_BREAK = "\N{NO-BREAK SPACE}"
STEPS = 40
"""Operations shown of the smallest failing list."""


def draw_fuzz(report: FuzzReport, seconds: float) -> RenderableType:
    """`seconds`: wall time of the run, which is no part of the report."""
    mark, style, said = ("✔", "bold green", "no violation") if report.failure is None else ("✘", "bold red", "violated")
    rate = f", {report.operations / seconds:,.0f} a second" if seconds > 0.1 else ""
    verdict = Text.assemble(
        (f"{mark} {said}", style), f" in {report.operations:,} operations on {report.episodes} virtual machines, {seconds:.1f} s{rate}"
    )
    parts: list[RenderableType] = [verdict]
    if report.coverage:
        parts += [Text(), _coverage(report.coverage), Text(), _work(report.counters)]
    if report.excused:
        parts.append(draw_excused(report.excused))
    if report.failure is not None:
        parts += [Text(), _failure(report.failure)]
    return Group(*parts)


def draw_excused(excused: Mapping[str, int]) -> Text:
    """Why and how often the judges left something to Linux."""
    return Text("not judged: " + ", ".join(f"{why} {count:,}" for why, count in excused.items()), style="dim")


def _coverage(coverage: dict[str, dict[str, int]]) -> Table:
    table = Table("operation", "times", "how it ended", box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.columns[1].justify = "right"
    for name, ends in coverage.items():
        often = sorted(ends.items(), key=lambda end: -end[1])
        table.add_row(name, f"{sum(ends.values()):,}", " · ".join(f"{end} {count:,}".replace(" ", NO_BREAK) for end, count in often))
    return table


def _work(counters: dict[str, int]) -> Text:
    names = ("mmu_cache_miss", "mmu_shadow_zapped", "mmu_recycled", "mmu_flooded", "mmu_unsync", "special_allocated", "special_freed")
    return Text("engine: " + ", ".join(f"{name} {counters.get(name, 0):,}" for name in names), style="dim")


def _failure(failure: Found) -> RenderableType:
    lines = [Text(failure.message, style="red"), Text(f"again: {failure.reproduce}", no_wrap=True, overflow="ignore")]
    if failure.smallest:
        lines.append(Text(f"a shorter list of operations that ends alike, {len(failure.smallest)} of them:"))
        lines += [Text(f"  {step}") for step in failure.smallest[-STEPS:]]
    if failure.path is not None:
        return Group(*lines, Text(), draw_address(failure.path))
    return Group(*lines)
