# SPDX-License-Identifier: GPL-2.0-only
"""What coverage.py and gcov counted, by room: the last step of `make coverage`.

gcov knows lines of the C that Cython made. A line of source is reached if any of its C is. So a line with no C of its own, a
declaration, is none; and a line of a .pxd is reached if it is so in any of the modules that take it up.

Example: PYTHONPATH=tools python tools/cover/report.py build/coverage
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from c_lines import origins
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
Lines = defaultdict[str, dict[int, bool]]
"""File -> line -> whether it was reached."""


def counted(notes: Path) -> Iterator[dict[str, Any]]:
    """The files that gcov tells of for one object: the C itself, and headers."""
    command = ["gcov", "--json-format", "--stdout", str(notes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    for line in done.stdout.splitlines():
        yield from json.loads(line)["files"]


def compiled(place: Path) -> Lines:
    """Lines of the compiled modules."""
    reached: Lines = defaultdict(dict)
    for data in sorted((place / "objects").rglob("*.gcda")):
        for file in counted(data.with_suffix(".gcno")):
            if not file["file"].startswith("build/c/src"):
                continue
            source = origins(ROOT / file["file"])
            for line in file["lines"]:
                at = source[line["line_number"]]
                if at:
                    reached[at[0]][at[1]] = reached[at[0]].get(at[1], False) or line["count"] > 0
    return reached


def plain(place: Path) -> Lines:
    """Lines of modules that are not compiled."""
    reached: Lines = defaultdict(dict)
    for name, file in json.loads((place / "python.json").read_text())["files"].items():
        path = Path(name).resolve()
        if path.with_suffix(".pxd").exists():
            continue
        lines = reached[str(path.relative_to(place / "src"))]
        lines.update(dict.fromkeys(file["missing_lines"], False) | dict.fromkeys(file["executed_lines"], True))
    return reached


def room(name: str) -> str:
    """`engine/fault` of the engine's and the checks' files, else the room alone."""
    parts = Path(name).parent.parts[1:]
    return "/".join(parts[: 2 if parts and parts[0] in ("engine", "check", "machine") else 1]) or "."


def by_room(lines: Lines) -> dict[str, tuple[int, int]]:
    """Lines reached and lines, of each room."""
    found: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for name, file in lines.items():
        reached, every = found[room(name)]
        found[room(name)] = reached + sum(file.values()), every + len(file)
    return found


def share(reached: int, every: int) -> str:
    return f"{100 * reached / every:.1f} %" if every else "·"


def main(place: Path) -> None:
    sides = {"Python": plain(place), "compiled": compiled(place)}
    (place / "missed.txt").write_text(
        "".join(
            f"{name}: {', '.join(str(n) for n, reached in sorted(file.items()) if not reached)}\n"
            for lines in sides.values()
            for name, file in sorted(lines.items())
            if not all(file.values())
        )
    )
    table = Table(title="lines that tests reach")
    for heading in ("room", "Python", "of lines", "compiled", "of lines"):
        table.add_column(heading, justify="left" if heading == "room" else "right")
    rooms = [by_room(lines) for lines in sides.values()]
    for name in sorted(rooms[0] | rooms[1]):
        python, c = (side.get(name, (0, 0)) for side in rooms)
        table.add_row(name, share(*python), f"{python[1]:,}", share(*c), f"{c[1]:,}")
    Console(width=100).print(table)
    totals = []
    for side, counts in zip(sides, rooms, strict=True):
        reached, every = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
        totals.append(f"{side} {share(reached, every)} of {every:,} lines")
    print(f"TOTAL {', '.join(totals)}; what is missed is in {(place / 'missed.txt').relative_to(ROOT)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
