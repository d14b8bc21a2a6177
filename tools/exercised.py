# SPDX-License-Identifier: GPL-2.0-only
"""Records what reaches which functions of the engine, for `shadowmmu tests`: guests, captures, lists of known bugs, and tests.

They run on an engine that tells of each part it comes through, the first time, and when that is. Of every function the record
keeps all guests, and of captures and of tests the few that are best for it and for its file. Kinds that are not named keep their rows.

Examples: python tools/exercised.py --write
          python tools/exercised.py guest --write        in a few minutes; enough for a function that is new
          python tools/exercised.py test --tests tests/rules/test_hazards.py
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import parts
from parts import ROOT

from shadowmmu.check.fuzz import Op
from shadowmmu.runs.exercised.record import KINDS, RECORD, Kind, Reached, Record, Recorded, best_first, from_text, once_each, to_text
from shadowmmu.runs.exercised.sources import Function, functions

OF_FUNCTION: dict[Kind, int] = {"guest": 20, "capture": 3, "bug": 20, "test": 3}
"""How many of each kind the record has of a function, at most: all guests and bugs, and few of what there is much of."""
OF_FILE = 3
"""And how many of each kind that are best for a file as a whole."""
TESTS = ("tests/rules", "tests/unit/engine", "tests/unit/check")
"""Those that are about the engine itself. What the others do in it, guests, captures and random operations, has rows of its own."""
PLUGINS = ("-p", "exercised", "-p", "no:xdist", "-p", "no:cacheprovider")

Met = dict[Function, dict[int, int]]
"""Of each function the parts that were met, and at which clock."""


class Engine:
    """The engine that tells, in a process of its own each time; and what it told."""

    def __init__(self) -> None:
        self.of = parts.parts()
        self.sizes = parts.sizes(self.of)

    def met(self, file: Path) -> Met:
        found: defaultdict[Function, dict[int, int]] = defaultdict(dict)
        for line in file.read_text().splitlines():
            clock, offset, module = line.split(" ", 2)
            part = self.of.get((module, int(offset, 16)))
            if part is not None:
                at = found[part[0]]
                at[part[1]] = min(at.get(part[1], 1 << 62), int(clock))
        return found

    def run(self, *command: str, **more: str) -> None:
        """A command of Python's on that engine; what it writes is not looked at."""
        told = more | {"LD_PRELOAD": str(parts.HOOK), "PYTHONPATH": f"{parts.SRC}:{ROOT / 'tools'}"}
        subprocess.run([sys.executable, *command], cwd=ROOT, env=os.environ | told, check=False)


# --- in the process that is told of: each run's name and file, one after the other


class Clock:
    """What the preloaded hook writes beside each part, and where it writes it."""

    def __init__(self) -> None:
        self._hook = ctypes.CDLL(str(parts.HOOK))
        self._value = ctypes.c_uint64.in_dll(self._hook, "exercised_clock")

    def begin(self, folder: Path, name: str) -> None:
        self._value.value = 0
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        self._hook.exercised_begin(os.fsencode(file))

    def set(self, value: int) -> None:
        self._value.value = value


def run_guests(folder: Path) -> None:
    """Each guest on each root design, exit by exit."""
    from shadowmmu import ROOT_DESIGNS
    from shadowmmu.cli.guests import find_guest, guest_files
    from shadowmmu.runs.guest_run import GuestRun

    clock = Clock()
    for name in sorted(guest_files()):
        for roots in ROOT_DESIGNS:
            clock.begin(folder, name if roots == "special" else f"{name} --roots {roots}")
            guest = GuestRun(find_guest(name), name, roots=roots, on_exit=lambda machine, _: clock.set(machine.exits + 1))
            clock.set(1)
            guest.run()


def run_captures(folder: Path) -> None:
    """Each capture on the captured kernel's roots and on special ones, event by event."""
    from shadowmmu.captures.find import find_all
    from shadowmmu.check.replay.replay import Replay

    clock = Clock()

    class Timed(Replay):
        def step(self) -> bool:
            clock.set(self.at)
            return super().step()

    for one in find_all((), None):
        capture = one.load()
        for roots in (None, "special"):
            clock.begin(folder, one.name if roots is None else f"{one.name} --roots {roots}")
            Timed(capture, roots).run()


def run_bugs(folder: Path) -> None:
    """The list of each known bug that has one, operation by operation; on the engine without the bug."""
    from shadowmmu.check.fuzz import perform, read_story

    clock = Clock()
    for path in sorted((ROOT / "bugs" / "lists").glob("*.ops")):
        setup, operations = read_story(path.read_text())
        clock.begin(folder, path.stem)
        perform(setup, _counted(operations, clock))


def _counted(operations: Iterable[Op], clock: Clock) -> Iterator[Op]:
    for number, op in enumerate(operations, 1):
        clock.set(number)
        yield op


RUNS = {"guest": run_guests, "capture": run_captures, "bug": run_bugs}


def pytest_runtest_setup(item: Any) -> None:
    """As a plugin of pytest: what is met now is this test's, its child processes' included."""
    place = Path(os.environ["EXERCISED_TESTS"], str(len(os.listdir(os.environ["EXERCISED_TESTS"]))))
    place.mkdir()
    os.environ["EXERCISED_FOLDER"] = str(place)
    Clock().begin(place, "met")


def pytest_runtest_logreport(report: Any) -> None:
    """A test that passes gets its name told; any other is no row."""
    if report.when == "call" and report.passed:
        Path(os.environ["EXERCISED_FOLDER"], "name").write_text(report.nodeid.partition("[")[0])


# --- what came of it


def told(engine: Engine, kind: Kind, tests: Sequence[str]) -> Iterator[tuple[str, Met]]:
    """Each run of a kind, and what it met."""
    with tempfile.TemporaryDirectory() as place:
        if kind != "test":
            engine.run("-c", f"import exercised, pathlib; exercised.RUNS[{kind!r}](pathlib.Path({place!r}))")
            for file in sorted(path for path in Path(place).rglob("*") if path.is_file()):
                yield str(file.relative_to(place)), engine.met(file)
            return
    for path in (path for test in tests for path in _test_files(ROOT / test)):
        with tempfile.TemporaryDirectory() as place:
            engine.run("-m", "pytest", *PLUGINS, str(path), EXERCISED_TESTS=place)
            for name in sorted(Path(place).glob("*/name")):
                yield name.read_text(), _merged(engine.met(file) for file in name.parent.iterdir() if file != name)


def _test_files(path: Path) -> list[Path]:
    return sorted(path.rglob("test_*.py")) if path.is_dir() else [path]


def _merged(all_met: Iterable[Met]) -> Met:
    merged: defaultdict[Function, dict[int, int]] = defaultdict(dict)
    for met in all_met:
        for function, at in met.items():
            merged[function].update(at)
    return merged


def rows(engine: Engine, kind: Kind, tests: Sequence[str]) -> dict[Function, list[Reached]]:
    """What of a kind reaches each function, the best first."""
    found = bug_rows(dict(told(engine, kind, tests))) if kind == "bug" else all_rows(kind, told(engine, kind, tests))
    files: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for function, of_function in found.items():
        files[function.module].update({row.name: row.parts for row in of_function})
    best = {module: {name for name, _ in names.most_common(OF_FILE)} for module, names in files.items()}
    return {function: kept(of_function, best[function.module], OF_FUNCTION[kind]) for function, of_function in found.items()}


def all_rows(kind: Kind, runs: Iterable[tuple[str, Met]]) -> dict[Function, list[Reached]]:
    met: defaultdict[str, list[Met]] = defaultdict(list)
    for name, one in runs:
        met[name].append(one)
    found: defaultdict[Function, list[Reached]] = defaultdict(list)
    for name, several in met.items():
        merged = _merged(several)
        for function, at in merged.items():
            found[function].append(Reached(kind, name, len(at), len(merged) if kind == "test" else min(at.values())))
    return found


def kept(rows: Iterable[Reached], best_of_file: set[str], most: int) -> list[Reached]:
    """The best of a function, and what is best for the file."""
    rows = best_first(rows)
    best = {row.name for row in once_each(rows)[:most]} | best_of_file
    return [row for row in rows if row.name in best]


def bug_rows(met: dict[str, Met]) -> dict[Function, list[Reached]]:
    """Known bugs by the functions that they are edits of, with how far their lists go in these."""
    found: defaultdict[Function, list[Reached]] = defaultdict(list)
    for path in sorted((ROOT / "bugs").glob("*.toml")):
        edited = {edit["function"] for edit in tomllib.loads(path.read_text())["edit"]}
        for function in (function for function in functions() if function.name.rpartition(".")[2] in edited):
            at = met.get(path.stem, {}).get(function, {})
            found[function].append(Reached("bug", path.stem, len(at), min(at.values(), default=0)))
    return found


def recorded(engine: Engine, kinds: Sequence[Kind], tests: Sequence[str]) -> Record:
    """The record with the rows of these kinds made anew: the functions of today, and no other."""
    new = {kind: rows(engine, kind, tests) for kind in kinds}
    old = from_text(RECORD.read_text()) if RECORD.exists() else {}
    nothing = Recorded(0, [])
    return {
        function: Recorded(
            engine.sizes[function],
            [
                *(row for row in old.get(function, nothing).rows if row.kind not in kinds),
                *(row for of_kind in new.values() for row in of_kind.get(function, ())),
            ],
        )
        for function in functions()
    }


def main(
    *kinds: Kind,
    tests: Annotated[tuple[str, ...], cyclopts.Parameter(consume_multiple=True)] = TESTS,
    write: Annotated[bool, cyclopts.Parameter(negative="")] = False,
) -> int:
    """Record what reaches which functions.

    Parameters
    ----------
    kinds
        Only these kinds: guest, capture, bug, test.
    tests
        Files and folders of tests.
    write
        Put it into the package; or else print it.
    """
    parts.build()
    text = to_text(recorded(Engine(), kinds or KINDS, tests))
    if write:
        RECORD.write_text(text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(cyclopts.run(main))
