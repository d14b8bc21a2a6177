# SPDX-License-Identifier: GPL-2.0-only
"""docs/full.md: what the long recipes ended with."""

from __future__ import annotations

import re
from pathlib import Path

import full

PAGE = full.PAGE.read_text()
RECIPES = set(re.findall(r"^([a-z-]+):", (Path(__file__).parents[2] / "Makefile").read_text(), flags=re.M))


def test_each_row_is_a_recipe_that_there_is() -> None:
    assert full.rows_of(PAGE).keys() <= full.STEPS.keys() <= RECIPES


def test_a_row_is_made_anew_and_the_others_kept() -> None:
    assert full.with_rows(PAGE, full.rows_of(PAGE)) == PAGE
    row = full.Row("soak", "FAILED", "2.5", "2026-01-02", "✔ 5 operations")
    rows = full.rows_of(full.with_rows(PAGE, full.rows_of(PAGE) | {"soak": row}))
    assert rows == full.rows_of(PAGE) | {"soak": row}


def test_the_last_words_are_the_lines_that_tell() -> None:
    assert full.last_words("soak", "12 %\n✔ one\nmore\n✔ two | three\n\n") == "✔ one; ✔ two / three"
    assert full.last_words("guests", "a on max: status 33, DONE\nb on max: status 1, FAIL\n") == "b on max: status 1, FAIL"
    assert full.last_words("count", "valgrind died\nno such file\n") == "no such file"


def test_a_recipe_without_its_tools_is_told_as_not_run(monkeypatch) -> None:
    monkeypatch.setattr(full.shutil, "which", lambda tool: None)
    row = full.run("count")
    assert (row.verdict, row.ended) == ("NOT RUN", "needs valgrind")
