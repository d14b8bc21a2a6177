# SPDX-License-Identifier: GPL-2.0-only
"""Moments of a run by their names, and what changed in the tables between two of them."""

from __future__ import annotations

import json

import pytest

from shadowmmu.cli.guests import find_guest
from shadowmmu.cli.main import call
from shadowmmu.errors import BadInput
from shadowmmu.look.changes import changes_between
from shadowmmu.look.picture import take_picture
from shadowmmu.runs.guest_run import GuestRun
from shadowmmu.runs.moments import Moment
from shadowmmu.runs.stepped import between, exit_of

GUEST = find_guest("2-level")


def exits(*moments: str) -> list[int]:
    return exit_of(GUEST, "2-level", "special", [Moment(moment) for moment in moments])


def test_a_moment_is_where_its_event_is_told() -> None:
    first, other, level, third = exits("first unsync", "first unsync of gfn 416", "first zap of level 2", "third root")
    for number, name in ((first, "kvm_mmu_unsync_page"), (level, "kvm_mmu_prepare_zap_page"), (third, "mmu_load")):
        (told,) = between(GUEST, "2-level", "special", [number - 1, number])
        assert name in [event.rule.event for event in told.events]
    assert first <= other and exits("5", "2nd CR write")[0] == 5


@pytest.mark.parametrize("text", ["", "0", "first nothing", "unsync of gfn xyz", "first unsync of level two", "9" * 30, "first other"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="moment of a run"):
        Moment(text)


def test_a_moment_that_does_not_come_is_told() -> None:
    with pytest.raises(BadInput, match="did not come"):
        exits("first unsync of gfn fffff")


def test_tables_that_went_unsync_are_among_the_changes() -> None:
    (number,) = exits("first unsync")
    (told,) = between(GUEST, "2-level", "special", [number - 1, number])
    unsync = [table for table in told.changes.tables if table.after and table.after.endswith(" unsync")]
    assert unsync and all(table.before and not table.before.endswith("unsync") for table in unsync)


def test_changes_are_none_of_a_picture_with_itself_and_turn_around() -> None:
    run = GuestRun(GUEST, "2-level")
    run.run(300)
    before = take_picture(run.machine.vm)
    assert not changes_between(before, before).tables
    run.run(420)
    after = take_picture(run.machine.vm)
    there, back = changes_between(before, after), changes_between(after, before)
    assert there.tables and len(there.tables) == len(back.tables)
    assert sum(len(table.entries) for table in there.tables) == sum(len(table.entries) for table in back.tables)
    assert {(table.before, table.after) for table in there.tables} == {(table.after, table.before) for table in back.tables}


def test_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["step", "2-level", "--at", "first unsync", "--count", "2"]) == 0
    out = capsys.readouterr().out
    assert "kvm_mmu_unsync_page" in out and "before" in out and " ~ " in out and max(map(len, out.splitlines())) <= 100
    assert call(["show", "2-level", "--diff", "200", "tenth root", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["steps"]
    assert told["before"] == 200 and told["changes"]["tables"]
    assert call(["show", "2-level", "--diff", "300", "third root"]) == 2
    assert call(["show", "2-level", "--at", "first unsync"]) == 0
