# SPDX-License-Identifier: GPL-2.0-only
"""docs/where.md: what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (.+?\?) \| `([\w/.]+)` \| (.*?) ?\|$", (ROOT / "docs" / "where.md").read_text(), flags=re.M)


def test_there_are_twenty_questions() -> None:
    assert len(ROWS) >= 20


@pytest.mark.parametrize(("question", "path", "functions"), ROWS)
def test_the_answer_is_where_it_says(question: str, path: str, functions: str) -> None:
    place = ROOT / "src" / "shadowmmu" / path
    assert place.exists(), question
    for name in re.findall(r"`(\w+)`", functions):
        assert re.search(rf"^(?:def|class) {name}\b", place.read_text(), flags=re.M), f"{path} has no {name}: {question}"
