# SPDX-License-Identifier: GPL-2.0-only
"""The benchmarks' own work is done as they say; no figure is held to anything."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import costliest_lines
import growth
import operations
import run
import twin
from rows import Row

from shadowmmu.check.audit import audit


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return twin.build()


def test_growth_makes_as_many_pages_as_it_says(library: ctypes.CDLL) -> None:
    vm = growth.guest(1000)
    assert vm.vcpus[0].touch_range(0, 1000, growth.LARGE, growth.WRITE) == 1000
    assert sum(page.level == 1 for page in vm.shadow_pages()) == 1000 and audit(vm) == []
    assert all(row.figure > 0 for row in growth.sized(library, 1000))


def test_a_size_that_the_host_has_no_memory_for_is_told(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "available", lambda: 0)
    told = [row.work for row in growth.rows(library) if "not measured" in row.work]
    assert len(told) == len(growth.SIZES)


def test_fork_is_refused_a_write_to_each_page() -> None:
    """It raises if one was not."""
    assert [row.figure > 0 for row in operations.forks()] == [True]


def test_syncs_bring_the_guests_changes() -> None:
    guest = operations.process()
    operations.unsync_all(guest)
    operations.put(guest, guest.entries[5], operations.WRITABLE, on=False)
    assert sum(page.unsync for page in guest.vm.shadow_pages()) == operations.TABLES
    operations.flush(guest)
    assert not any(page.unsync for page in guest.vm.shadow_pages()) and audit(guest.vm) == []


def test_a_page_of_figures() -> None:
    rows = [Row("faults", "first touch", 80.5, "ns", "C twin", 70.0, (1.1, 1.2)), Row("around", "start", 1234.0, "ms")]
    page = run.document(rows)
    assert "| first touch | 80.5 ns | 1.15 (1.10-1.20) | C twin: 70 ns |" in page
    assert "| start | 1,234 ms |  |  |" in page and "## Around" in page


def test_costs_of_lines_without_those_of_calls(tmp_path: Path) -> None:
    dump = tmp_path / "out"
    dump.write_text("fl=/somewhere/shadowmmu/a.py\nfn=one\n5 10\ncalls=3 7\n6 999\n5 1\nfi=/other/b.h\n8 50\nfe=/x/shadowmmu/a.py\n9 2\n")
    assert costliest_lines.costs(dump) == {("shadowmmu/a.py", 5): 11, ("shadowmmu/a.py", 9): 2}
