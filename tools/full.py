# SPDX-License-Identifier: GPL-2.0-only
"""All that CI has no time for, recipe by recipe, and a page with what each ended with, docs/full.md.

A recipe that fails stops none of those behind it. One whose tools are missing is told as not run. What a recipe writes is kept
in build/full.

Examples: python tools/full.py --write
          python tools/full.py --write soak museum     these again; the page keeps the other rows
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import cyclopts

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "full.md"
LOGS = ROOT / "build" / "full"


class Step(NamedTuple):
    """A recipe, what it needs besides, and the lines of its output that tell how it ended."""

    command: str
    ended: str
    needs: tuple[str, ...] = ()


STEPS = {
    "test": Step("make test", r"^\d+ passed.*"),
    "count": Step("make count", r"^no ratio .*", ("valgrind",)),
    "fuzz-face": Step("make fuzz-face EXAMPLES=20000", r"^\d+ passed.*"),
    "fuzz-readers": Step("make fuzz-readers SECONDS=600", r".*\S.*"),
    "soak": Step("make soak", r"^✔.*"),
    "sanitize": Step("make sanitize", r"^(?:✔|\d+ passed|sanitizers:).*"),
    "guests": Step("make --no-print-directory -C guests check", r".* on .*: status \d+, .*", ("nasm", "qemu-system-x86_64")),
    "coverage": Step("make coverage", r"^TOTAL.*"),
    "package": Step("make package", r"^(?:✔|\d+ passed).*"),
    "two-kernels": Step("make two-kernels", r"^✔.*", ("apt-get", "qemu-system-x86_64")),
    "museum": Step("make museum", r".*\S.*"),
}
LAST_ONLY = ("fuzz-readers", "guests", "museum")
"""Recipes of which the last line tells all."""


class Row(NamedTuple):
    """How a recipe ended."""

    name: str
    verdict: str
    minutes: str
    day: str
    ended: str


def cpu_minutes() -> float:
    """What all processes took that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def last_words(name: str, output: str) -> str:
    """What the recipe's output says of its end; its last line, if it is not what was to come."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    found = [line for line in lines if re.match(STEPS[name].ended, line)] or lines
    return "; ".join(found[-1:] if name in LAST_ONLY or found is lines else found).replace("|", "/")


def run(name: str) -> Row:
    """Run one recipe to its end, and keep what it writes."""
    step, today = STEPS[name], f"{datetime.now(UTC):%Y-%m-%d}"
    missing = [tool for tool in step.needs if not shutil.which(tool)]
    if missing:
        return Row(name, "NOT RUN", "", today, f"needs {', '.join(missing)}")
    before = cpu_minutes()
    done = subprocess.run(step.command, shell=True, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / f"{name}.log").write_text(done.stdout)
    verdict = "FAILED" if done.returncode else "passed"
    return Row(name, verdict, f"{cpu_minutes() - before:.1f}", today, last_words(name, done.stdout))


def rows_of(page: str) -> dict[str, Row]:
    """The rows that a page has."""
    rows = (Row(*(cell.strip(" `") for cell in line.strip("|").split("|"))) for line in page.splitlines() if line.startswith("| `"))
    return {row.name: row for row in rows}


def with_rows(page: str, rows: dict[str, Row]) -> str:
    """The page with its table made anew, in the order of the recipes."""
    table = [f"| `{row.name}` | {row.verdict} | {row.minutes} | {row.day} | {row.ended} |" for row in (rows[n] for n in STEPS if n in rows)]
    kept = [line for line in page.splitlines() if not line.startswith("| `")]
    head = next(i for i, line in enumerate(kept) if line.startswith("|---")) + 1
    return "\n".join([*kept[:head], *table, *kept[head:]]) + "\n"


def main(*names: str, write: Annotated[bool, cyclopts.Parameter(negative="")] = False) -> int:
    """Run all recipes that take long, or those named.

    Parameters
    ----------
    names
        Recipes.
    write
        Put what they ended with into docs/full.md.
    """
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        print(f"no recipe {', '.join(unknown)} among {', '.join(STEPS)}", file=sys.stderr)
        return 2
    failed = False
    for name in names or STEPS:
        row = run(name)
        print(*(cell for cell in row if cell), sep="  ", flush=True)
        failed |= row.verdict == "FAILED"
        if write:
            page = PAGE.read_text()
            PAGE.write_text(with_rows(page, rows_of(page) | {name: row}))
    return int(failed)


if __name__ == "__main__":
    sys.exit(cyclopts.run(main))
