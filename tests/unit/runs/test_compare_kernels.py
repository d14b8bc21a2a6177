# SPDX-License-Identifier: GPL-2.0-only
"""Two kernels on one guest: each rule's part is told, what the guest can tell before the rest, and nothing of equal kernels."""

from __future__ import annotations

import kernels_apart
import pytest

from shadowmmu.captures.find import find
from shadowmmu.cli.main import call
from shadowmmu.engine.face.kernels import RULES
from shadowmmu.runs import captured_run
from shadowmmu.runs.compare_kernels import KernelComparison, compare_kernels
from shadowmmu.runs.subject import CapturedSubject


def compared(name: str, *kernels: str) -> KernelComparison:
    subject = CapturedSubject(name, find(name)[0].load())
    older, newer = kernels
    return compare_kernels(subject, subject.roots, (older, newer), lambda _rule: None)


def test_a_root_outside_memory_is_what_the_guest_can_tell() -> None:
    told = compared("linux_7_3/p64_nowhere", "7.3", "6.1")
    assert told.kernels == ["6.1", "7.3"] and not told.alike and not told.together
    first, *rest = told.rules
    assert first.rule == "hides_root" and first.since == "6.12" and first.visible is not None and first.says == RULES["hides_root"]
    assert {rule.rule for rule in rest} == {"sregs_flush", "unprotects_late"} and all(rule.visible is None for rule in rest)
    flush = next(rule for rule in rest if rule.rule == "sregs_flush")
    assert (flush.places, flush.first.exit) == (1, 1)
    assert {name: event.text.split()[0] for name, event in flush.first.told.items()} == {"without": "mmu_load", "with": "guest_tlb_flush"}
    assert next(figure.counts for figure in flush.counts if figure.name == "guest_tlb_flush") == {"without": 0, "with": 1}


def test_a_rule_that_only_the_newer_one_has() -> None:
    told = compared("linux_7_3/pae_slots", "6.12", "7.3")
    assert [rule.rule for rule in told.rules] == ["mmio_loads_walk", "dirties_writable"]
    assert told.alike and all(rule.since == "7.3" for rule in told.rules)


def test_a_fault_whose_delivery_faults_is_given_once() -> None:
    """Pages of SMEP's own cost faults, also on the way to the guest's handler: it sees nothing of them."""
    told = compared("linux_7_3/pae_smep", "6.12", "7.3")
    (smep,) = told.rules
    assert told.alike and smep.rule == "smep_in_role" and smep.visible is None and smep.places == 5


def test_a_run_that_never_ends_parts_from_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_run, "MOST_EXITS", 500)
    told = compared("linux_7_3_tdp0/pae_rotable", "6.1", "6.12")
    assert told.verdicts == {"6.1": "not ended after 500 exits", "6.12": "ended"}
    retries = next(rule for rule in told.rules if rule.rule == "retries_zapped")
    assert retries.visible is not None and retries.visible.kinds["without"].startswith("not ended")


def test_kernels_that_do_the_same_part_nowhere() -> None:
    told = compared("linux_7_3/p32_nowhere", "6.12", "7.3")
    assert told.alike and told.parting is None and told.rules == []


def test_guests_are_counted_by_rule(capsys: pytest.CaptureFixture[str]) -> None:
    """tools/kernels_apart.py; a guest that two kernels ran is counted once."""
    kernels_apart.main(["linux_7_3/p64_nowhere", "linux_6_12/p64_nowhere", "linux_7_3/pae_smep"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6.1 and 6.12: 2 of 2 guests' runs differ, 1 of these guests can tell."
    assert "| `hides_root` | 1 | 1 | 1 | `linux_7_3/p64_nowhere`, 1 |" in lines
    assert "6.12 and 7.3: 1 of 2 guests' runs differ, 0 of these guests can tell." in lines
    assert "| `smep_in_role` | 1 | 0 | 5 | `linux_7_3/pae_smep`, 5 |" in lines and lines.count("By no rule alone: none.") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("pae --kernel 6.1 --kernel 6.12 --kernel 7.3", "name two"),
        ("pae --kernel 6.1 --kernel 7.3 --engine here", "name two"),
        ("linux_7_3 --kernel 6.1 --kernel 7.3", "name one capture"),
        ("linux_6_12_nested/n64_lma --kernel 6.1 --kernel 7.3", "looks at an L2 before that has run"),
        ("nothing --kernel 6.1 --kernel 7.3", "no guest 'nothing'"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["compare", *arguments.split()]) == 2
    assert says in capsys.readouterr().err


def test_it_is_drawn_rule_by_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["compare", "linux_7_3/p64_nowhere", "--kernel", "6.1", "--kernel", "7.3"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("✘ the guest can tell Linux 6.1 and 7.3 apart")
    assert lines[2].startswith("hides_root, since 6.12: ") and lines[3].startswith("  the guest can tell, first at ")
