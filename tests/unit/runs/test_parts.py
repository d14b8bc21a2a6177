# SPDX-License-Identifier: GPL-2.0-only
"""What a build with `--flavour parts` tells: each part once, at the clock of its first time, of children too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import exercised
import parts
import pytest

from shadowmmu.runs.exercised.record import Reached
from shadowmmu.runs.exercised.sources import Function

SOURCE = "int sign(int x) { if (x < 0) return -1; return 1; }"
PROGRAM = """
import ctypes, os, sys
hook, told = ctypes.CDLL(sys.argv[1]), ctypes.CDLL(sys.argv[2])
clock = ctypes.c_uint64.in_dll(hook, "exercised_clock")
for clock.value, x in enumerate((5, 5, -5, 5), 1):
    told.sign(x)
hook.exercised_begin(sys.argv[3].encode())
clock.value = 9
if os.fork() == 0:
    told.sign(5)
    os._exit(0)
os.wait()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which PROGRAM has run."""
    place = tmp_path_factory.mktemp("parts")
    (place / "told.c").write_text(SOURCE)
    (place / "folder").mkdir()
    build = ["cc", "-shared", "-fPIC", "-O0", "-g1", "-fsanitize-coverage=trace-pc", "-o", str(place / "told.so"), str(place / "told.c")]
    subprocess.run(build, check=True)
    parts.build_hook(place / "hook.so")
    environment = os.environ | {"LD_PRELOAD": str(place / "hook.so"), "EXERCISED_FOLDER": str(place / "folder")}
    files = [str(place / name) for name in ("hook.so", "told.so", "later")]
    subprocess.run([sys.executable, "-c", PROGRAM, *files], env=environment, check=True)
    return place


def lines(path: Path) -> list[tuple[int, int]]:
    words = [line.split(" ") for line in path.read_text().splitlines()]
    assert all(module.endswith("/told.so") for _, _, module in words)
    return [(int(clock), int(offset, 16)) for clock, offset, _ in words]


def test_each_part_is_told_once_and_when(told: Path) -> None:
    (file,) = (told / "folder").iterdir()
    clocks = [clock for clock, _ in lines(file)]
    assert clocks[:-1] == [1] * (len(clocks) - 1) and clocks[-1] == 3, "what is below zero comes third"
    sites = sorted(parts.call_sites(told / "told.so"))
    assert sorted(offset for _, offset in lines(file)) == sites


def test_a_child_writes_where_its_parent_does(told: Path) -> None:
    (file,) = (told / "folder").iterdir()
    assert lines(told / "later") == [(9, offset) for _, offset in lines(file)[:-1]]


def test_what_was_met_is_led_back_to_functions(tmp_path: Path) -> None:
    engine = object.__new__(exercised.Engine)
    load, free = Function("engine/roots/roots", "load"), Function("engine/roots/roots", "free")
    engine.of = {("a.so", 0x10): (load, 0), ("a.so", 0x20): (load, 1), ("b.so", 0x10): (free, 0), ("c.so", 0x30): (free, 0)}
    (tmp_path / "met").write_text("4 10 a.so\n5 30 c.so\n6 20 a.so\n7 10 b.so\n8 10 elsewhere.so\n")
    assert engine.met(tmp_path / "met") == {load: {0: 4, 1: 6}, free: {0: 5}}
    assert parts.sizes(engine.of) == {load: 2, free: 1}


def test_the_best_is_kept_of_a_function_and_of_its_file() -> None:
    rows = [Reached("guest", name, parts, 1) for name, parts in (("pae", 3), ("2-level", 4), ("pae --roots legacy", 5), ("4-level", 1))]
    assert [row.name for row in exercised.kept(rows, set(), 2)] == ["pae --roots legacy", "2-level"]
    assert [row.name for row in exercised.kept(rows, {"4-level"}, 1)] == ["pae --roots legacy", "4-level"]
