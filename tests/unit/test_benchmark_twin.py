"""The C twin of the benchmark does the same work as the engine: same tables, bit for bit, and same counters."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import twin as bench


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return bench.build()


@pytest.mark.parametrize("mode", bench.MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("code", [0, 2, 6, 0x10])
def test_same_tables_and_counters(library: ctypes.CDLL, mode: bench.Mode, code: int) -> None:
    pages = 5000
    engine, twin = bench.Engine(mode, pages), bench.Twin(library, mode, pages)
    for turn in (0, code, 2, 3):
        assert engine.touch(0, pages, turn) == twin.touch(0, pages, turn)
        assert bench.differences(engine, twin, mode.levels) == []
    assert engine.touch(pages << 12, 100, code) == twin.touch(pages << 12, 100, code) == 0
    assert bench.differences(engine, twin, mode.levels) == []
    assert engine.counters()["pf_guest"] == 100
    twin.close()
