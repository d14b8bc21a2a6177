# SPDX-License-Identifier: GPL-2.0-only
"""Bugs put back into the engine are found again, from rules alone: some that must be, by one hunt each.

The whole museum, five hunts a bug, is `make museum`.
"""

from pathlib import Path

import pytest

from shadowmmu.check.bugs.bug import Bug, Edit, read_bug
from shadowmmu.check.bugs.copy import checkout
from shadowmmu.check.bugs.hunt import hunt_bug
from shadowmmu.check.bugs.jobs import hunt_bugs
from shadowmmu.check.fuzz import read_story, replay

FOUND = [
    ("cve-2021-38198", {"I10"}),
    ("cve-2026-53359", {"I9", "WARN"}),  # what is wrong of it shows in two ways, and either may come first
    ("flush-notifier", {"I11"}),
    ("flush-unsync-leaf", {"I11"}),
    ("h5-pae-root-not-cleared", {"I2"}),
    ("h16-chain-ends-early", {"crash"}),
]


@pytest.mark.parametrize(("name", "rules"), FOUND)
def test_a_bug_is_found_from_rules_alone(name: str, rules: set[str]) -> None:
    verdict = hunt_bug(read_bug(checkout() / "bugs" / f"{name}.toml"), seconds=60, hunts=1, runs=0)
    assert verdict.killed, f"{name} is missed"
    assert verdict.finds[0].rule in rules, verdict.finds[0].message
    assert verdict.finds[0].command.startswith("shadowmmu fuzz --seed")


def test_several_at_a_time_come_in_their_order() -> None:
    unfit = Bug("unfit", "", [Edit("no_such_function", "a", "b")], id="unfit")
    verdicts = list(hunt_bugs([unfit, read_bug(checkout() / "bugs" / "log-maps-large.toml")], seconds=60, hunts=1, jobs=2))
    assert [verdict.id for verdict in verdicts] == ["unfit", "log-maps-large"]
    assert "no_such_function" in verdicts[0].reason
    assert verdicts[1].killed


LISTS = sorted((checkout() / "bugs" / "lists").glob("*.ops"))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_a_list_that_found_a_bug_ends_well_without_it(path: Path) -> None:
    setup, operations = read_story(path.read_text())
    assert (checkout() / "bugs" / f"{path.stem}.toml").exists() and operations
    failure = replay(setup, operations)
    assert failure is None, failure and failure.message


def test_there_are_lists() -> None:
    assert len(LISTS) > 10
