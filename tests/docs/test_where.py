# SPDX-License-Identifier: GPL-2.0-only
"""docs/where.md: what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (.+?\?) \| (`[\w/.`, ]+`) \| (.*?) ?\|$", (ROOT / "docs" / "where.md").read_text(), flags=re.M)


def test_there_are_twenty_questions() -> None:
    assert len(ROWS) >= 20
    assert len(ROWS) == len(re.findall(r"^\| .*\? \|", (ROOT / "docs" / "where.md").read_text(), flags=re.M)), "a row of another form"


@pytest.mark.parametrize(("question", "paths", "functions"), ROWS)
def test_the_answer_is_where_it_says(question: str, paths: str, functions: str) -> None:
    places = [ROOT / "src" / "shadowmmu" / path for path in re.findall(r"`([\w/.]+)`", paths)]
    assert places and all(place.exists() for place in places), question
    text = "".join(place.read_text() for place in places if place.is_file())
    for name in re.findall(r"`(\w+)`", functions):
        assert re.search(rf"^(?:(?:def|class) {name}\b|{name}(?:: .*)? = )", text, flags=re.M), f"{paths} has no {name}: {question}"
