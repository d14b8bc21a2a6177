# SPDX-License-Identifier: GPL-2.0-only
"""Measures the engine, the machine and what stands around them, in one run: CPU time, each figure beside another of the same run.

The topics:

faults      the fault path against a plain C twin of it that must end with the same tables, bit for bit
growth      what a fault, a page and a VM cost as the shadow grows to a million pages
operations  address spaces, syncs, fork, nested paging
machine     guests, exits by kind, code without exits beside bare Unicorn
around      the judges, replay, start-up
shares      where the CPU time of guests goes, if there is perf

Example: python benchmarks/run.py faults growth
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import against_twin
import around
import growth
import on_machine
import operations
import shares
import twin
from rich.console import Console
from rich.table import Table
from rows import Row, Rows

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


NOTES = {
    "growth": """A first write to a page of its own table meets some eight cache lines that nothing near it brought in: entries of levels
2 and 1 in the guest's tables and in the shadow's, the shadow page's header, its frame's owner, and the translation that it keeps
for a sync. So it is held against loads that wait for one another, in as much memory.""",
    "machine": """`l1-...` are hypervisors: an exit of theirs is a VMRUN, a VMLOAD, an exit of L2, a nested fault. What an
exit of the PAE guest takes by its kind is measured by a hook that sees each, so they are served in Python. Exits that are served in
the CPU's hook are measured on its raw state, and on contexts that its public API saves, which is what is left where the raw state is not
found. Code without exits is slower than on bare Unicorn, as a hook is called before each block of it: it counts instructions, by which
virtual time goes, and stops the CPU before a block where a timer or a limit is. The more a block does, the less it shows; a tight loop
is a block of three instructions. Its rates are slopes: what a long run takes more than a short one, on both sides, in turns, so that no
start is in them. A function that does nothing, called there on bare Unicorn, shows what of that is the
call. What it takes of the tours is told by runs of them without that hook, in which no time goes by but that of exits.""",
    "shares": """Of the CPU time of whole runs, start-up included, as perf samples it: where a guest's tour or a loop without exits spends
it. "Unicorn" in a tour is translation, and page tables walked anew behind each flush; in a loop on memory, the way to memory that it
goes anew for.""",
}
"""Behind the title of a topic."""


def topics() -> dict[str, Callable[[], Rows]]:
    library = twin.build()
    return {
        "faults": lambda: against_twin.rows(library),
        "growth": lambda: growth.rows(library),
        "operations": operations.rows,
        "machine": on_machine.rows,
        "around": around.rows,
        "shares": shares.rows,
    }


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cells(row: Row) -> tuple[str, str, str, str]:
    """Work, figure, ratio with its spread, and what it is to."""
    ratio = f"{row.ratio:.2f}" if row.ratio else ""
    if row.spread:
        ratio += f" ({row.spread[0]:.2f}-{row.spread[1]:.2f})"
    beside = f"{row.beside}: {number(row.peer)} {row.unit}" if row.peer else ""
    return row.work, f"{number(row.figure)} {row.unit}" if row.unit else "", ratio, beside


def draw(topic: str, rows: list[Row]) -> Table:
    table = Table(title=topic, title_justify="left")
    for heading, justify in (("work", "left"), ("figure", "right"), ("ratio", "right"), ("to", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*cells(row))
    return table


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"


def document(rows: list[Row]) -> str:
    """The figures as a page of the docs."""
    parts = [
        "# Benchmarks\n",
        "Written by `make bench`, in one run; CPU time, best of several rounds. A ratio is to a figure of the same run, given in the",
        "last column, with the 10th and 90th percentile of the rounds' ratios where the two sides took turns.",
        "What each row does: `benchmarks/`, a file a topic.\n",
        f"Measured on: {machine()}.",
    ]
    for topic in dict.fromkeys(row.topic for row in rows):
        parts += [
            f"\n## {topic.capitalize()}\n",
            *([NOTES[topic] + "\n"] if topic in NOTES else []),
            "| work | figure | ratio | to |",
            "|---|---|---|---|",
        ]
        parts += [f"| {' | '.join(cells(row))} |" for row in rows if row.topic == topic]
    return "\n".join(parts) + "\n"


def figures(rows: list[Row]) -> str:
    """The same as JSON."""
    return json.dumps([{**row._asdict(), "ratio": row.ratio} for row in rows], indent=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = topics()
    parser.add_argument(
        "topics", nargs="*", metavar="TOPIC", help=f"of {', '.join(every)}; without any: all, and docs/benchmarks.md is written"
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON, and no file is written")
    options = parser.parse_args()
    unknown = set(options.topics) - every.keys()
    if unknown:
        parser.error(f"no topic {', '.join(sorted(unknown))}: choose of {', '.join(every)}")
    console = Console(width=150, stderr=options.json)
    found: list[Row] = []
    for topic in options.topics or every:
        with console.status(f"measuring: {topic}"):
            rows = list(every[topic]())
        found += rows
        if not options.json:
            console.print(draw(topic, rows))
    if options.json:
        print(figures(found))
    elif not options.topics:
        DOCUMENT.write_text(document(found))
        DOCUMENT.with_suffix(".json").write_text(figures(found) + "\n")
        console.print(f"written to {DOCUMENT}, and beside it as JSON")


if __name__ == "__main__":
    main()
