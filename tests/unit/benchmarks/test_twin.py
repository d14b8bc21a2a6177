# SPDX-License-Identifier: GPL-2.0-only
"""The C twin of the benchmark does the same work as the engine: same tables, bit for bit, and same counters."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import twin as bench

PAGES = 5000


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return bench.build()


@pytest.mark.parametrize("bits", [bench.FRESH, bench.USED], ids=["fresh", "used"])
@pytest.mark.parametrize("mode", bench.MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("code", [0, 2, 6, 0x10])
def test_same_tables_and_counters(library: ctypes.CDLL, mode: bench.Mode, code: int, bits: int) -> None:
    engine, twin = bench.Engine(mode, PAGES, bits), bench.Twin(library, mode, PAGES, bits)
    for turn, step in ((0, 8), (0, 1), (code, 8), (code, 1), (2, 1), (3, 1)):
        count = PAGES // step
        assert engine.touch(0, count, turn, step * bench.PAGE) == twin.touch(0, count, turn, step * bench.PAGE)
        assert bench.differences(engine, twin, mode.levels) == []
    assert engine.touch(PAGES << 12, 100, code) == twin.touch(PAGES << 12, 100, code) == 0
    assert bench.differences(engine, twin, mode.levels) == []
    assert engine.counters()["pf_guest"] == 100
    twin.close()


def test_a_group_of_eight_is_prefetched(library: ctypes.CDLL) -> None:
    mode = bench.MODES[0]
    engine, twin = bench.Engine(mode, PAGES, bench.USED), bench.Twin(library, mode, PAGES, bench.USED)
    for side in (engine, twin):
        side.touch(0, 1, 2)
        assert side.counters()["pages_4k"] == 8
    twin.close()


def test_another_table_is_told(library: ctypes.CDLL) -> None:
    mode = bench.MODES[1]
    engine, twin = bench.Engine(mode, PAGES), bench.Twin(library, mode, PAGES)
    engine.touch(0, 2, 2)
    twin.touch(0, 1, 2)
    told = bench.differences(engine, twin, mode.levels)
    assert any(line.startswith("table ") for line in told)
    assert "pf_taken: engine 2, twin 1" in told
    twin.close()
