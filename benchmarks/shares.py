# SPDX-License-Identifier: GPL-2.0-only
"""Where the CPU time of guests goes, by perf: in guest code that is translated, in Unicorn around it, in what is ours and compiled, in
Python. Without perf there are no such rows.

Example: python benchmarks/shares.py pae    (runs the guest, several times, for perf to look at)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from on_machine import GUESTS, LONG, MEMORY, TIGHT, on_machine, times
from rows import Row, Rows

from shadowmmu.machine.loader import read_guest
from shadowmmu.machine.machine import Machine

TIMES, LEAST = 6, 2.0
WORKS = ("pae", "4-level", "l1-pae", "tight loop", "loop on memory")
_LOOPS = {"tight loop": TIGHT, "loop on memory": MEMORY}
_SHARE = re.compile(r"^\s*([\d.]+)%\s+(.+?)\s*$", flags=re.M)
_KINDS = (
    ("guest code, translated", re.compile(r"\[JIT\]")),
    ("Unicorn", re.compile(r"libunicorn")),
    ("the count of instructions", re.compile(r"stop_request")),
    ("Python", re.compile(r"libpython|_ctypes|libffi|_struct|iced_x86|_cyutility|^python")),
    ("ours, compiled", re.compile(r"cpython-\d+.*\.so")),
)


def run(work: str) -> None:
    for _ in range(TIMES):
        if work in _LOOPS:
            on_machine(times(LONG, _LOOPS[work]))
        else:
            Machine(read_guest(GUESTS / f"{work}.toml")).run()


def kind_of(library: str) -> str:
    return next((kind for kind, pattern in _KINDS if pattern.search(library)), "the system")


def shares(work: str, place: Path) -> Iterator[tuple[str, float]]:
    """Of the time of one work, the greatest first."""
    command = [sys.executable, __file__, work]
    subprocess.run(["perf", "record", "-q", "-F", "2000", "-o", place, "--", *command], check=True, capture_output=True)
    shown = subprocess.run(["perf", "report", "-i", place, "--stdio", "--sort", "dso"], check=True, capture_output=True, text=True)
    found: Counter[str] = Counter()
    for share, library in _SHARE.findall(shown.stdout):
        found[kind_of(library)] += float(share)
    yield from found.most_common()


def rows() -> Rows:
    if shutil.which("perf") is None or os.environ.get("LD_PRELOAD"):
        return
    with tempfile.TemporaryDirectory() as folder:
        for work in WORKS:
            for kind, share in shares(work, Path(folder, "perf.data")):
                if share >= LEAST:
                    yield Row("shares", f"{work}: {kind}", share, "%")


if __name__ == "__main__":
    run(sys.argv[1])
