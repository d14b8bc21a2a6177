# SPDX-License-Identifier: GPL-2.0-only
"""Draws the results of reruns: a table of all, the classes of differences between the CPUs, and a divergence side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from shlex import quote

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shadowmmu.border.plain import plain
from shadowmmu.check.rerun.captured_cpu import CLASSES
from shadowmmu.check.rerun.result import RerunResult
from shadowmmu.view.draw_replay import side_by_side

FIGURES = ("exits", "events", "said", "dumps", "dump_entries", "counters")
HEADS = ("exits", "events equal", "said", "dumps", "in dumps", "counters", "by class", "verdict")


def draw_results(results: Sequence[RerunResult], left_out: Mapping[str, str], verbose: bool) -> RenderableType:
    """`left_out`: captures that were not run -> why."""
    parts: list[RenderableType] = [_table(results, verbose), Text(), *_classes(results), _verdict(results)]
    for why in sorted(set(left_out.values())):
        names = [name for name, reason in left_out.items() if reason == why]
        sets = ", ".join(dict.fromkeys(name.split("/")[0] for name in names))
        parts.append(Text(f"not run: {len(names)} of {sets}: {why}", style="dim"))
    for result in results:
        if not result.ok:
            parts += [Text(), *_divergence(result)]
    return Group(*parts)


def _table(results: Sequence[RerunResult], verbose: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("capture" if verbose else "set", no_wrap=True)
    for head in HEADS[:-1]:
        table.add_column(head, justify="right")
    table.add_column(HEADS[-1], no_wrap=True)
    groups: dict[str, list[RerunResult]] = {}
    for result in results:
        groups.setdefault(result.capture if verbose else result.capture.split("/")[0], []).append(result)
    for name, members in groups.items():
        figures = [sum(getattr(result, figure) for result in members) for figure in FIGURES]
        figures.append(sum(sum(result.explained.values()) for result in members))
        table.add_row(plain(name), *(f"{figure:,}" for figure in figures), _mark(members))
    return table


def _mark(members: Sequence[RerunResult]) -> Text:
    good = sum(result.ok for result in members)
    if good == len(members):
        return Text("equal" if good == 1 else f"{good} equal", style="green")
    return Text(f"{len(members) - good} of {len(members)} diverge", style="red")


def _classes(results: Sequence[RerunResult]) -> Iterator[RenderableType]:
    """How often the captured CPU's own manner was needed."""
    found: Counter[str] = Counter()
    for result in results:
        found.update(result.explained)
    if not found:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("class", no_wrap=True)
    table.add_column("times", justify="right")
    table.add_column("the captured CPU")
    for name, count in found.most_common():
        table.add_row(name, f"{count:,}", CLASSES[name])
    yield table
    yield Text()


def _verdict(results: Sequence[RerunResult]) -> Text:
    good = sum(result.ok for result in results)
    events = sum(result.events for result in results)
    whole = good == len(results)
    mark = "✔" if whole else "✘"
    text = f"{mark} {good} of {len(results)} guests do here what they did on the real kernel, {events:,} events equal"
    return Text(text, style="bold green" if whole else "bold red")


def _divergence(result: RerunResult) -> Iterator[RenderableType]:
    name = plain(quote(result.capture))
    yield Text(plain(result.capture), style="bold")
    if result.bugs:
        yield Text("the engine hit the kernel's warnings: " + ", ".join(result.bugs), style="red")
    found = result.divergence
    if found is None:
        return
    yield Text(plain(found.what), style="red")
    yield Text(f"while {plain(found.operation)}")
    if found.rows:
        yield side_by_side(found.rows, "machine")
    yield Text(f"again: shadowmmu rerun {name} --roots {result.roots}", no_wrap=True, overflow="ignore")
    yield Text(f"the kernel's state there: shadowmmu replay {name} --at {found.index}", no_wrap=True, overflow="ignore")
