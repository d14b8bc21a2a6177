# SPDX-License-Identifier: GPL-2.0-only
"""Instructions of the engine's page faults beside those of its C twin, counted by callgrind and held to recorded ratios.

An instruction count is the same on a busy machine as on an idle one. The work is that of `against_twin.py` on fewer pages; callgrind
counts inside `Vcpu.touch_range` and the twin's `touch_range`, and dumps when one of them returns. A ratio more than 2 % above
the recorded one is a failure, exit code 1. A ratio depends on the compilers: with others than those it was recorded with, it
is told and held to nothing.

Examples: python benchmarks/count.py
          python benchmarks/count.py --record    after a change that is worth what it costs, or that saved something
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import twin as bench
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from rich.console import Console
from rich.table import Table

from shadowmmu.engine.face import vcpu

RECORDED = Path(__file__).with_name("counts.json")
PAGES = 4096
GROUP = 8
READ, WRITE = 0, 2
ALLOWED = 1.02
"""So many times the recorded ratio: a function is inlined or not by a hair's breadth."""
TWIN_RANGE = "touch_range"

Ratios = dict[str, float]


class CannotCount(Exception):
    """What is missing here, and the remedy."""


class Touch(NamedTuple):
    """One call; counted if it has a name."""

    name: str
    code: int
    step: int = 1


WORK = (
    (bench.FRESH, (Touch("first touch", WRITE),)),
    (bench.USED, (Touch("group of 8", WRITE, GROUP),)),
    (bench.FRESH, (Touch("", READ), Touch("write after read", WRITE), Touch("", WRITE), Touch("warm translation", WRITE))),
)
"""What `against_twin.py` measures, by the bits of the guest's leaves."""


class Count(NamedTuple):
    """Instructions a fault."""

    work: str
    engine: float
    c: float

    @property
    def ratio(self) -> float:
        return self.engine / self.c


def steps() -> list[tuple[bench.Mode, int, Touch]]:
    """All calls in their order: the engine's, and behind each the twin's."""
    return [(mode, bits, touch) for mode in bench.MODES for bits, touches in WORK for touch in touches]


def do_work() -> None:
    """What callgrind looks at, in a process of its own."""
    library = bench.build()
    for mode in bench.MODES:
        for bits, touches in WORK:
            engine, other = bench.Engine(mode, PAGES, bits), bench.Twin(library, mode, PAGES, bits)
            for touch in touches:
                for side in (engine, other):
                    side.touch(0, PAGES // touch.step, touch.code, touch.step * bench.PAGE)
            found = bench.differences(engine, other, mode.levels)
            if found:
                raise CannotCount(f"{mode.name}: engine and twin disagree: {'; '.join(found[:3])}")
            other.close()


def engine_range() -> str:
    """The C name that Cython gave `Vcpu.touch_range`."""
    with open(vcpu.__file__, "rb") as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, SymbolTableSection):
                for symbol in section.iter_symbols():
                    if symbol.name.startswith("__pyx_pw_") and symbol.name.endswith("touch_range"):
                        return str(symbol.name)
    raise CannotCount(f"{vcpu.__file__} has no symbols to count by: build it in place, with make")


def instructions(dump: Path) -> int:
    """What one dump of callgrind counted."""
    return int(next(line for line in dump.read_text().splitlines() if line.startswith("summary:")).split()[1])


def count() -> list[Count]:
    """Run the work under callgrind, which writes a dump a call."""
    functions = (engine_range(), TWIN_RANGE)
    options = [f"--{option}={name}" for name in functions for option in ("toggle-collect", "dump-after")]
    with tempfile.TemporaryDirectory(prefix="shadowmmu-count-") as place:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={place}/out", *options, sys.executable, __file__, "--work"]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
        if run.returncode:
            raise CannotCount(f"the work failed under callgrind: {run.stderr[-2000:]}")
        counted = [instructions(Path(place, f"out.{number + 1}")) for number in range(2 * len(steps()))]
    return [
        Count(f"{mode.name}: {touch.name}", ours / (PAGES // touch.step), theirs / (PAGES // touch.step))
        for (mode, _, touch), ours, theirs in zip(steps(), counted[::2], counted[1::2], strict=True)
        if touch.name
    ]


def compilers() -> str:
    """What made the code that is counted."""
    cc = subprocess.run(["cc", "-dumpfullversion"], check=True, capture_output=True, text=True).stdout.strip()
    return f"cc {cc}, Cython {version('cython')}, {platform.machine()}"


def draw(counts: list[Count], recorded: Ratios) -> None:
    table = Table(title=f"instructions a fault, {PAGES:,} pages")
    for heading in ("work", "engine", "C", "ratio", "recorded"):
        table.add_column(heading, justify="left" if heading == "work" else "right")
    for row in counts:
        before = f"{recorded[row.work]:.3f}" if row.work in recorded else "·"
        table.add_row(row.work, f"{row.engine:,.0f}", f"{row.c:,.0f}", f"{row.ratio:.3f}", before)
    Console(width=100).print(table)


def judge(counts: list[Count], recorded: Ratios) -> list[str]:
    """What rose too far, or was never recorded."""
    return [
        f"{row.work}: the ratio is {row.ratio:.3f}, recorded {recorded.get(row.work, 0):.3f}"
        for row in counts
        if row.ratio > ALLOWED * recorded.get(row.work, 0)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="keep these ratios as those to be held to")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        do_work()
        return 0
    if not shutil.which("valgrind"):
        raise CannotCount("no valgrind to count instructions with: apt install valgrind")
    counts = count()
    if options.record:
        ratios = {row.work: round(row.ratio, 4) for row in counts}
        RECORDED.write_text(json.dumps({"compilers": compilers(), "ratios": ratios}, indent=2) + "\n")
    recorded = json.loads(RECORDED.read_text())
    draw(counts, recorded["ratios"])
    if recorded["compilers"] != compilers():
        print(f"not compared: recorded with {recorded['compilers']}; here {compilers()}")
        return 0
    risen = judge(counts, recorded["ratios"])
    print("\n".join(risen) or f"no ratio is more than {ALLOWED - 1:.0%} above the recorded one")
    return bool(risen)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CannotCount as error:
        print(error, file=sys.stderr)
        sys.exit(2)
