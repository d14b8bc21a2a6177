# SPDX-License-Identifier: GPL-2.0-only
"""The costliest lines of the engine's page faults: instructions a fault, counted by callgrind in a build that knows its lines.

Run it with a build of `setup.py build_ext --flavour lines` first on the path, as `make profile` does.

Example: make profile
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import count
import twin as bench
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import shadowmmu

SOURCES = Path(__file__).resolve().parent.parent / "src"
PAGES = 4096
LINES = 5

Place = tuple[str, int]  # a file below SOURCES, a line in it


def costs(dump: Path) -> Counter[Place]:
    """Instructions of each line of ours, of a dump with whole names and numbers."""
    spent: Counter[Place] = Counter()
    file, of_a_call = "", False
    for line in dump.read_text().splitlines():
        kind, _, name = line.partition("=")
        if kind in ("fl", "fi", "fe"):
            at = name.rfind("shadowmmu/")
            file = name[at:] if at >= 0 else ""
        elif kind == "calls":
            of_a_call = True
        elif line[:1].isdigit():
            number, instructions = line.split()[:2]
            if file and not of_a_call:  # what a call cost stands with the called function already
                spent[file, int(number)] += int(instructions)
            of_a_call = False
    return spent


def profile(work: int) -> Counter[Place]:
    """The costs of one row of `count.WORK`'s calls, in a process of its own under callgrind."""
    with tempfile.TemporaryDirectory(prefix="shadowmmu-profile-") as place:
        dump = Path(place, "out")
        subprocess.run(
            [
                "valgrind", "--tool=callgrind", f"--toggle-collect={count.engine_range()}", f"--callgrind-out-file={dump}",
                "--dump-line=yes", "--compress-strings=no", "--compress-pos=no", sys.executable, __file__, "--work", str(work),
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        return costs(dump)


def do_work(work: int) -> None:
    """What callgrind looks at."""
    bits, touches = count.WORK[work]
    engine = bench.Engine(bench.MODES[0], PAGES, bits)
    for touch in touches:
        engine.touch(0, PAGES // touch.step, touch.code, touch.step * bench.PAGE)


def text(place: Place) -> str:
    """The line itself."""
    lines = (SOURCES / place[0]).read_text().splitlines()
    return lines[place[1] - 1].strip() if place[1] <= len(lines) else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        do_work(options.work)
        return 0
    if not shutil.which("valgrind"):
        sys.exit("no valgrind to count instructions with: apt install valgrind")
    console = Console(width=int(os.environ.get("COLUMNS", "150")))
    console.print(f"engine: {Path(shadowmmu.__file__).parent}")
    for number, (_, touches) in enumerate(count.WORK):
        spent = profile(number)
        total, faults = sum(spent.values()), sum(PAGES // touch.step for touch in touches)
        names = ", ".join(touch.name or ("a write" if touch.code else "a read") for touch in touches)
        table = Table(title=f"{names}: {total / faults:,.0f} instructions a fault in lines of ours", title_justify="left")
        for heading in ("a fault", "share", "line", ""):
            table.add_column(heading, justify="right" if heading in ("a fault", "share") else "left", no_wrap=True)
        for place, instructions in spent.most_common(LINES):
            table.add_row(f"{instructions / faults:,.0f}", f"{instructions / total:.1%}", f"{place[0]}:{place[1]}", escape(text(place)))
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
