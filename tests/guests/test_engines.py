# SPDX-License-Identifier: GPL-2.0-only
"""`compare --engine`: what small patches do to a guest, said in the first ten lines; engines that cannot be run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from shadowmmu.check.bugs.bug import apply, read_bug
from shadowmmu.check.bugs.copy import changed_functions, checkout
from shadowmmu.cli.main import call
from shadowmmu.runs.compare_engines import EngineComparison
from shadowmmu.runs.other_engine import OtherEngine

PATCHES = sorted((Path(__file__).parent / "patches").glob("*.toml"))
NEVER_UNSYNC = PATCHES[0].with_stem("never-unsync")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The engine's sources of a checkout that is not built."""
    shutil.copytree(
        checkout() / "src", tmp_path / "mine" / "src", ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__", "*.egg-info")
    )
    return tmp_path / "mine"


def test_each_patch_changes_one_function(sources: Path) -> None:
    assert len(PATCHES) == 6
    clean = {path: path.read_text() for path in sources.rglob("*.py")}
    for patch in PATCHES:
        bug = read_bug(patch)
        apply(bug, sources)
        (changed,) = changed_functions(sources)
        assert changed.partition(".")[2] == bug.edit[0].function
        for path, text in clean.items():
            path.write_text(text)


def test_ten_lines_say_what_never_unsync_costs(capsys: pytest.CaptureFixture[str]) -> None:
    """The guest sees nothing of it; 383 emulated instructions become 6,562."""
    assert call(["compare", "pae", "--engine", str(NEVER_UNSYNC)]) == 0
    first = capsys.readouterr().out.splitlines()[:10]
    assert "never-unsync changes unsync.unsync_pages" in first[1] and "cannot tell the engines apart" in first[2]
    assert "kvm_mmu_unsync_page, mmu_try_to_unsync_pages" in first[4]
    (emulated,) = (line for line in first if "instructions emulated" in line)
    assert emulated.split()[2:4] == ["383", "6,562"] and "mmu_try_to_unsync_pages" in emulated


def test_a_checkout_with_a_patch(sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It need not be built. Every flush is a cost, and no event."""
    apply(read_bug(PATCHES[0].with_stem("flush-always")), sources)
    assert call(["compare", "nonpaging", "--engine", str(sources), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    msgspec.convert(told, EngineComparison, strict=True)
    assert told["changed"] == ["leaf.set_spte"] and told["parting"] is None and not told["violations"]
    assert {figure["name"] for figure in told["costs"]} == {"TLB flushes", "remote TLB flushes"}
    assert all(figure["counts"]["mine"] > figure["counts"]["here"] and figure["why"] for figure in told["costs"])
    assert list(sources.rglob("*.so")) == [], "it is built in a copy"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "the engine crashed: signal 11"),
        ("raise ValueError('it is broken')", "ValueError: it is broken"),
        ("import time; time.sleep(60)", "no end after"),
    ],
)
def test_an_engine_that_does_not_come_back(code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadowmmu.runs.own_process.PATIENCE", 1)
    runs = tmp_path / "src" / "shadowmmu" / "runs"
    runs.mkdir(parents=True)
    for package in (runs.parent, runs):
        (package / "__init__.py").touch()
    (runs / "own_process.py").write_text(code)
    engine = OtherEngine("mine", tmp_path)
    assert said in engine.measure(Path("pae"), "special", "6.1", 10, 0).broke
    assert engine.events_of(Path("pae"), "special", "6.1", 1) == []


def test_what_is_no_engine_is_refused(tmp_path: Path, sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for named, said in (
        (tmp_path, "has no src/shadowmmu/engine"),
        ("nothing", "the museum has no such bug"),
        (sources, "nothing in its src/"),
    ):
        assert call(["compare", "nonpaging", "--engine", str(named)]) == 2
        assert said in capsys.readouterr().err
    assert call(["compare", "nonpaging", "--engine", str(NEVER_UNSYNC), "--roots", "special", "--roots", "legacy"]) == 2
