# SPDX-License-Identifier: GPL-2.0-only
"""Bugs put back into the engine are found again, from rules alone: some that must be, by one hunt each.

The whole museum, five hunts a bug, is `make museum`.
"""

import pytest

from shadowmmu.check.bugs.bug import read_bug
from shadowmmu.check.bugs.copy import checkout
from shadowmmu.check.bugs.hunt import hunt_bug


@pytest.mark.parametrize(("name", "rule"), [("flush-unsync-leaf", "I11"), ("flush-notifier", "I11"), ("h5-pae-root-not-cleared", "I2")])
def test_a_bug_is_found_from_rules_alone(name: str, rule: str) -> None:
    verdict = hunt_bug(read_bug(checkout() / "bugs" / f"{name}.toml"), seconds=60, hunts=1, runs=0)
    assert verdict.killed, f"{name} is missed"
    assert verdict.finds[0].rule == rule, verdict.finds[0].message
    assert verdict.finds[0].command.startswith("shadowmmu fuzz --seed")
