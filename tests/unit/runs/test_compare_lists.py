# SPDX-License-Identifier: GPL-2.0-only
"""`compare` of recorded operations: designs, kernels, engines; what is violated or crashes is told, and figures of a part are none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shadowmmu.check.fuzz import Kind, Op, Setup, write_story
from shadowmmu.cli.main import call
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.runs.compare import compare_designs, run_list
from shadowmmu.runs.compare_engines import HERE, compare_engines
from shadowmmu.runs.operations_run import OPERATION, OperationsRun
from shadowmmu.runs.other_engine import OtherEngine
from shadowmmu.runs.own_process import OwnProcess
from shadowmmu.runs.subject import ListSubject

PATCHES = Path(__file__).parents[2] / "guests" / "patches"
RECORDED = Path(__file__).with_name("recorded.ops")
"""220 operations on which designs and kernels are alike for the guest; on every third list they are not."""


def test_designs_are_alike_for_the_guest_and_not_for_the_host() -> None:
    subject = ListSubject(RECORDED)
    told = compare_designs(subject.name, {design: run_list(subject.measure(design, "7.3", audits=True)) for design in ROOT_DESIGNS})
    assert told.alike and {figure.name for figure in told.differs} >= {"special_allocated", "pf_taken"}
    assert sum(figure.counts["special"] for figure in told.guest_sees) == 220
    assert any("bare" in chain.tops["legacy"] and "★" in chain.tops["special"] for chain in told.chains)


def test_two_kernels_part_by_their_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["compare", str(RECORDED), "--kernel", "6.12", "--kernel", "7.3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "cannot tell Linux 6.12 and 7.3 apart" in lines[0] and any(line.startswith("npt_role_plain, since 7.3") for line in lines)
    assert any(", operation " in line for line in lines)


def test_an_engine_that_lets_all_be_written_is_caught_at_its_operation(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["compare", str(RECORDED), "--engine", str(PATCHES / "writes-allowed.toml")]) == 1
    first = capsys.readouterr().out.splitlines()[:10]
    assert first[1] == "writes-allowed changes walker.permission_fault"
    where = re.search(r"violated by (operation \d+) on writes-allowed", first[2])
    assert where is not None and "left guest entry" in "".join(first[3:5])
    assert any(line.startswith("they part at access") and line.endswith(where[1]) for line in first)
    assert not any("what it costs" in line for line in first), "of a part of the list"


class Crashing(OtherEngine):
    """It has a name, and never comes back."""

    def __init__(self, tree: Path) -> None:
        OwnProcess.__init__(self, tree)
        self.name, self.changed = "crashing", ["nothing"]


def test_an_engine_that_crashes(tmp_path: Path) -> None:
    runs = tmp_path / "src" / "shadowmmu" / "runs"
    runs.mkdir(parents=True)
    for package in (runs.parent, runs):
        (package / "__init__.py").touch()
    (runs / "own_process.py").write_text("import os; os.kill(os.getpid(), 11)")
    told = compare_engines(ListSubject(RECORDED), Crashing(tmp_path), "special", "7.3")
    assert told.verdicts == {HERE: "done", "crashing": "the engine crashed: signal 11"} and not told.alike
    assert told.parting is None and told.costs == told.guest_sees == told.divergences == []


def test_how_it_was_done_is_no_business_of_the_guests() -> None:
    """An access that the CPU completes and one that is emulated are the same for the guest; one that faults is not."""
    read = Op(Kind.ACCESS, 0, 0x1000, 4, 4)
    told = OperationsRun(Setup(3, modes=("pae",)), [read, read._replace(kind=Kind.EMULATED), read._replace(b=6)]).run()
    assert told.unit == OPERATION and len({step.digest for step in told.steps}) == 1
    assert told.guest_sees == {"access done": 2, "emulated done": 1}


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--engine", "nothing"], "the museum has no such bug"),
        (["--engine", str(PATCHES / "never-unsync.toml"), "--trace", "x"], "--trace is for the events of a guest"),
        (["--roots", "legacy"], "one design alone is no comparison"),
        (["--kernel", "6.1", "--kernel", "6.12", "--kernel", "7.3"], "name two"),
    ],
)
def test_what_cannot_be_compared_is_refused(extra: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["compare", str(RECORDED), *extra]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"), [(write_story(Setup(1), []), "has no operations"), ("# operations of shadowmmu\nseed 1\n", "a line each")]
)
def test_a_list_that_is_none_is_refused(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list").write_text(text)
    assert call(["compare", str(tmp_path / "list")]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
