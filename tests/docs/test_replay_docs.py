# SPDX-License-Identifier: GPL-2.0-only
"""docs/replay.md and check/replay/ignore.py say the same of what is not compared, in both directions."""

from __future__ import annotations

import re
from pathlib import Path

from shadowmmu import EventRecord
from shadowmmu.check.compare import ignore
from shadowmmu.check.special_roots.known_differences import KNOWN_DIFFERENCES
from shadowmmu.check.special_roots.rules import RULES
from shadowmmu.engine.arena.events import Event as Kind
from shadowmmu.trace import engine
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent

PAGE = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()
SECTION = PAGE.partition("## What is ignored, and why\n")[2].partition("\n## ")[0]
ROWS = dict(re.findall(r"^\| (`[^|]*) \| ([^|]*) \|$", SECTION, flags=re.M))


def tag(kind: type[AnyEvent]) -> str:
    return str(kind.__struct_config__.tag)


def part(title: str) -> str:
    return SECTION.partition(f"\n### {title}\n")[2].partition("\n### ")[0]


def test_kinds_and_fields_have_a_row_with_the_reason_in_the_code() -> None:
    kinds = {f"`{tag(kind)}`": why for kind, why in (ignore.INPUTS | ignore.NOISE).items()}
    fields = {f"`{field}` of any event": why for field, why in ignore.FIELDS.items()}
    tdp = {f"`{field}` of `{tag(kind)}`, with a TDP MMU": why for kind, (field, why) in ignore.TDP_FIELDS.items()}
    assert kinds.keys() | fields.keys() | tdp.keys() == ROWS.keys(), "docs/replay.md and ignore.py do not name the same things"
    assert kinds | fields | tdp == ROWS


def test_every_other_list_of_the_code_is_named_and_no_more() -> None:
    in_code = {name for name in vars(ignore) if name.isupper()} - {"INPUTS", "NOISE", "FIELDS", "TDP_FIELDS"}
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", SECTION))
    assert named == in_code, f"docs/replay.md names {sorted(named - in_code)} too much, lacks {sorted(in_code - named)}"


def test_the_counters_are_those_of_the_code() -> None:
    parts = re.split(r"`(?:TDP|YIELDING)_COUNTERS`", part("Counters"))
    told, left_out, yielding = (re.findall(r"`([a-z][a-z0-9_]+)`", text) for text in parts)
    assert tuple(told) == ignore.COUNTERS
    assert set(left_out) == ignore.TDP_COUNTERS and set(yielding) == ignore.YIELDING_COUNTERS


def test_what_the_engine_does_not_tell_is_either_left_out_or_compared_otherwise() -> None:
    told = {type(engine.from_record(EventRecord(int(kind), 0, (1, 2, 3, 4, 5, 6)))) for kind in Kind}
    rest = set(AnyEvent.__args__) - told - ignore.INPUTS.keys() - ignore.NOISE.keys()
    assert rest == {e.InjException, e.Marker}
    assert "`kvm_inj_exception` and the markers" in SECTION


def test_the_letters_are_those_of_the_code() -> None:
    """Each difference of roots of special pages stands in the docs as in the code, and each rule belongs to one."""
    section = PAGE.partition("## On roots of special pages\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w) \| ([^|]*) \| ([^|]*) \|$", section, flags=re.M)
    assert rows == [tuple(letter) for letter in KNOWN_DIFFERENCES]
    assert {letter for letter, _ in RULES} <= {letter.letter for letter in KNOWN_DIFFERENCES}
    assert all(rule.__doc__ for _, rule in RULES)
