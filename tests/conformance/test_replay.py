# SPDX-License-Identifier: GPL-2.0-only
"""Every capture of the real kernel replays: exactly on legacy roots, on special ones but for differences that have a letter."""

import pytest
from designs import every_design

from shadowmmu.captures.find import find
from shadowmmu.check.audit import audit
from shadowmmu.check.compare.result import ReplayResult
from shadowmmu.check.replay.replay import Replay, replay
from shadowmmu.trace.events import VmEntry
from shadowmmu.trace.text import to_text

CAPTURES = [pytest.param(found, id=found.name) for found in find(None)]


def told(result: ReplayResult) -> str:
    found = result.divergence
    if found is None:
        return ", ".join(result.bugs)
    rows = [f"{'>' if r.differs else ' '} {r.kernel and to_text(r.kernel)} | {r.engine and to_text(r.engine)}" for r in found.rows]
    return "\n".join((result.capture, found.what, found.operation, *rows))


@pytest.mark.parametrize("capture", CAPTURES)
@every_design
def test_replays(capture, roots):
    result = replay(capture.load(), roots)
    assert result.ok, told(result)
    assert result.events > 20
    assert result.entries > 5  # of page tables: a guest may shut down early


def test_much_is_compared():
    """A replay that compares nothing would be exact as well."""
    results = [replay(found.load()) for found in find("shadow")]
    assert sum(result.events for result in results) > 8000
    assert sum(result.dump_entries for result in results) > 12000
    assert sum(result.injected for result in results) >= 70
    assert sum(result.stores for result in results) > 250
    assert sum(result.loads for result in results) > 300


REPORTED = {"zero": {"I9"}, "late": {"I8", "I9", "I16"}, "slotpool/p64_slotpool1": {"I8", "I10"}}
"""Captures in which Linux breaks a rule, and which: a leaf moves to another gfn on the same frame; a mark is kept where memory is, and
maps a table writable, whose leaf, or link, then is of an old entry. `zero/...c` are guests of `zero` on two frames."""


@pytest.mark.parametrize(("found", "rules"), [pytest.param(f, rules, id=f.name) for name, rules in REPORTED.items() for f in find(name)])
def test_what_linux_lets_happen_only_a_strict_audit_reports(found, rules):
    replay = Replay(found.load())
    told = set[str]()
    for at, event in enumerate(replay.events):
        if isinstance(event, VmEntry) and replay.run(at + 1).ok:
            assert audit(replay.vm) == []
            told.update(violation.invariant for violation in audit(replay.vm, strict=True))
    assert told == (set() if found.name.endswith("c") else rules)
