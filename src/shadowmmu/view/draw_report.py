# SPDX-License-Identifier: GPL-2.0-only
"""Draws a `RunReport`: the verdict, what exits, faults and tables there were, the audit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.machine.last_seen import LastSeen, Place
from shadowmmu.machine.result import GuestResult, Reason
from shadowmmu.runs.guest_run import RunReport

_SEEN_BY = {"events": "the log of events takes", "caller": "who made the run looks at"}
"""By `RunReport.seen_by`, of each exit."""

SHOWN = 20
"""Violations shown of one audit."""


def draw_report(report: RunReport, seconds: float) -> RenderableType:
    """`seconds`: wall time of the run, which is no part of the report."""
    parts: list[RenderableType] = [_verdict(report, seconds)]
    if report.result is not None:
        parts += [Text(), Columns(_tables(report, report.result), padding=(0, 3))]
    parts += [Text(), _facts(report)]
    if not report.as_expected:
        parts += [Text(), _last_seen(report.last_seen)]
    if report.reproduce:
        parts.append(_what_broke(report))
    return Group(*parts)


def _verdict(report: RunReport, seconds: float) -> Text:
    result = report.result
    said = (
        ("broke off" if report.broke else "audit failed")
        if result is None
        else result.reason.value + (f": {result.detail}" if result.detail else "")
    )
    if result is not None and result.reason is Reason.EXIT_LIMIT:
        said = "stopped as asked" if report.as_expected else "gave up"
    if result is not None and result.reason is Reason.HALTED and not report.as_expected:
        said += ', and nothing says that it should; if so, write end = "halt" in its TOML'
    mark, style = ("✔", "bold green") if report.as_expected else ("✘", "bold red")
    rate = f", {report.exits / seconds:,.0f} a second" if seconds > 0.1 else ""
    return Text.assemble((f"{mark} {plain(said)}", style), f" after {report.exits:,} exits in {seconds:.1f} s{rate}")


def _tables(report: RunReport, result: GuestResult) -> Iterable[RenderableType]:
    yield _figures("exits", result.exits)
    counters = report.counters
    faults = {
        "fixed": result.outcomes.get("fixed", 0) + result.outcomes.get("retry", 0),
        "spurious": result.outcomes.get("spurious", 0),
        "emulated": result.outcomes.get("emulate", 0),
        "injected": result.outcomes.get("inject", 0),
    }
    yield _figures("page faults", faults)
    work = {
        "pages made": counters["mmu_cache_miss"],
        "pages zapped": counters["mmu_shadow_zapped"],
        "writes traced": counters["mmu_pte_write"],
        "went unsync": counters["mmu_unsync"],
        "TLB flushes": counters["tlb_flush"],
    }
    yield _figures("shadow MMU", work)
    yield _figures("shadow pages now", report.tables)


def _figures(title: str, figures: Mapping[str, int]) -> Table:
    table = Table(title, "", box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.columns[1].justify = "right"
    for name, number in figures.items():
        table.add_row(name, f"{number:,}")
    return table


def _facts(report: RunReport) -> Table:
    counters, result = report.counters, report.result
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", min_width=14)
    made, freed = counters["special_allocated"], counters["special_freed"]
    bare = ROOT_DESIGNS[report.roots].bare
    table.add_row(f"{report.roots} roots", "bare tables" if bare else f"{made:,} pages made, {freed:,} freed")
    table.add_row("exits served", _served(report))
    if result is not None:
        delivered = ", ".join(f"{count:,} {name}" for name, count in result.injected.items()) or "nothing"
        table.add_row("delivered", delivered)
        table.add_row("host memory", f"{result.host_memory / (1 << 20):.1f} MiB touched")
    if report.audit == "off":
        table.add_row("audit", Text("off", style="dim"))
    else:
        verdict = Text("no violation", style="green") if not report.violations else Text("violated", style="bold red")
        table.add_row("audit", Text(f"{report.audits:,} audit{'' if report.audits == 1 else 's'}, ").append_text(verdict))
    return table


def _served(report: RunReport) -> str:
    """By which of the ways there are."""
    if report.seen_by in _SEEN_BY:
        return f"{report.exits:,} in Python: {_SEEN_BY[report.seen_by]} each"
    state = "its raw state" if report.on_raw_state else "states that its public API saves"
    return f"{report.in_hook:,} in the CPU's hook, on {state}, {report.exits - report.in_hook:,} in Python"


def _last_seen(last: LastSeen) -> Table:
    """Where the guest was, its last faults, and what it asked for that is not there."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", min_width=14)
    for number, (place, faults) in enumerate(zip(last.vcpus, last.faults, strict=True)):
        table.add_row(f"vCPU {number} at", _place(place))
        for fault in faults:
            table.add_row("  was given", Text(f"{plain(fault.exception)}, in ").append_text(_place(fault.place)))
    for kind, times in last.unclaimed.items():
        asked = ", ".join(what + (f" ({count:,} times)" if count > 1 else "") for what, count in times.items())
        table.add_row(f"no such {plain(kind)}", Text(plain(asked)))
    for number, line in enumerate(last.screen):
        table.add_row("" if number else "on its screen", Text(plain(line), no_wrap=True))
    return table


def _place(place: Place) -> Text:
    return Text(plain(f"{place.symbol} ({place.rip}), {place.mode}" if place.symbol else f"{place.rip}, {place.mode}"))


def _what_broke(report: RunReport) -> RenderableType:
    lines = [Text(plain(line), style="red") for line in (report.broke, *report.violations[:SHOWN]) if line]
    if len(report.violations) > SHOWN:
        lines.append(Text(f"… and {len(report.violations) - SHOWN} more (--json has them all)", style="dim"))
    lines.append(Text(f"again:  {plain(report.reproduce)}", no_wrap=True, overflow="ignore"))
    return Group(*lines)
