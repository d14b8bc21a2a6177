# SPDX-License-Identifier: GPL-2.0-only
"""Draws the results of replays: a table of all, and a divergence side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shlex import quote

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.check.compare.result import ReplayResult, Row
from shadowmmu.check.special_roots.known_differences import KNOWN_DIFFERENCES, KnownDifference
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.text import to_text
from shadowmmu.view.divergence_rules import draw_rules

FIGURES = {
    "events": "events", "entries": "entries", "dumps": "dumps", "in dumps": "dump_entries", "counters": "counters",
    "faults": "injected", "stores": "stores", "loads": "loads",
}  # fmt: skip
"""Heads of columns, and the fields of a result that they show."""
BESIDE_LETTERS = ("events", "dumps", "in dumps")
"""Those for which there is room beside the letters."""


def draw_results(results: Sequence[ReplayResult], verbose: bool) -> RenderableType:
    """The table, then each capture that diverged."""
    parts: list[RenderableType] = [_table(results, verbose), Text()]
    if _lettered(results):
        parts += [_letters(results), Text()]
    parts.append(_verdict(results))
    for result in results:
        if result.ok and result.parted:
            told = (
                f"{plain(result.capture)} is equal for guest and user space, and right by oracle and audit, though {plain(result.parted)}"
            )
            parts.append(Text(told, style="dim"))
    for result in results:
        if result.until:
            parts.append(Text(f"{plain(result.capture)} was replayed until {result.until}", style="dim"))
    for result in results:
        if not result.ok:
            parts += [Text(), *draw_divergence(result)]
    return Group(*parts)


def _table(results: Sequence[ReplayResult], verbose: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")  # a verdict is never cut
    table.add_column("capture" if verbose else "set", no_wrap=True)
    letters = [one.letter for one in _lettered(results)]
    heads = BESIDE_LETTERS if letters else tuple(FIGURES)
    for head in (*heads, *letters):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    groups: dict[str, list[ReplayResult]] = {}
    for result in results:
        groups.setdefault(result.capture if verbose else result.capture.split("/")[0], []).append(result)
    for name, members in groups.items():
        figures = [sum(getattr(r, FIGURES[head]) for r in members) for head in heads]
        figures += [sum(r.differences.get(letter, 0) for r in members) for letter in letters]
        table.add_row(plain(name), *(f"{figure:,}" for figure in figures), _mark(members))
    return table


def _lettered(results: Sequence[ReplayResult]) -> list[KnownDifference]:
    """The differences that the root design of these results may show."""
    others = {result.roots for result in results if result.roots != result.captured_on}
    return [one for one in KNOWN_DIFFERENCES if any(one.letter in ROOT_DESIGNS[roots].differences for roots in others)]


def _letters(results: Sequence[ReplayResult]) -> Table:
    """What is different on these roots, how often, and why."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("", f"different on {results[0].roots} roots", "count", "why"):
        table.add_column(head, justify="right" if head == "count" else "left")
    for one in _lettered(results):
        table.add_row(one.letter, one.what, f"{sum(result.differences.get(one.letter, 0) for result in results):,}", one.why)
    return table


def _mark(members: Sequence[ReplayResult]) -> Text:
    good = sum(result.ok for result in members)
    equal = sum(bool(result.parted) for result in members)
    if good == len(members) and equal:
        return Text(f"{equal} equal" if good == equal else f"{good - equal} exact, {equal} equal", style="green")
    if good == len(members):
        return Text("exact" if good == 1 else f"{good} exact", style="green")
    return Text(f"{len(members) - good} of {len(members)} diverge", style="red")


def _verdict(results: Sequence[ReplayResult]) -> Text:
    good = sum(result.ok for result in results)
    events = sum(result.events for result in results)
    style = "bold green" if good == len(results) else "bold red"
    mark = "✔" if good == len(results) else "✘"
    exactly = "exactly" if not any(result.differences for result in results) else "with no other difference"
    return Text(f"{mark} {good} of {len(results)} captures replay {exactly}, {events:,} events equal", style=style)


def draw_divergence(result: ReplayResult) -> Iterator[RenderableType]:
    """What differs, where, and how to look at the state before it."""
    yield Text(plain(result.capture), style="bold")
    if result.bugs:
        yield Text("the engine hit the kernel's warnings: " + ", ".join(result.bugs), style="red")
    found = result.divergence
    if found is None:
        return
    yield Text(plain(found.what), style="red")
    yield Text(f"while {plain(found.operation)}")
    if found.rows:
        yield side_by_side(found.rows, "engine")
    if found.page is not None:
        page = found.page
        kind = "special page" if page.special else "shadow page"
        yield Text(f"the {kind} at {page.hpa:x}: gfn {page.gfn:x}, role {page.role:x} ({page.text})")
    yield draw_rules(found)
    roots = f"--roots {result.roots}" if result.captured_on == "legacy" else f"--captured-on {result.captured_on}"
    command = f"shadowmmu replay {quote(result.argument or result.capture)} {roots} --at {found.state_before}"
    yield Text(f"the state just before: {plain(command)}", no_wrap=True, overflow="ignore")


def side_by_side(rows: Sequence[Row], ours: str) -> Table:
    """Two streams of events; `ours` heads the right one."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", expand=False)
    table.add_column("")
    table.add_column("kernel", ratio=1)
    table.add_column(ours, ratio=1)
    for row in rows:
        table.add_row("✘" if row.differs else "", _event(row.kernel), _event(row.engine), style="red" if row.differs else _style(row))
    return table


def _event(event: AnyEvent | None) -> str:
    return "—" if event is None else to_text(event)


def _style(row: Row) -> str:
    return "dim" if row.kernel is not None and row.engine is not None else ""
