# SPDX-License-Identifier: GPL-2.0-only
"""The table of roots in docs/special-pages.md says what tests/helpers/root_table.py builds."""

from __future__ import annotations

import re
from pathlib import Path

from root_table import ROWS

PAGE = Path(__file__).parents[2] / "docs" / "special-pages.md"
LETTERS = {"special": "s", "normal": "n", "bare": "b", "passthrough": "p"}
NOT_OFFERED = 14  # has a test of its own


def documented() -> dict[int, tuple[str, str]]:
    """Row number -> chains of the special and the legacy design, a letter a level."""
    rows = re.findall(r"^\| (\d+) \|[^|]*\|[^|]*\| ([^|]*) \| ([^|]*) \|$", PAGE.read_text(), flags=re.M)
    return {
        int(number): ("".join(LETTERS[word] for word in special.split(", ")), "".join(LETTERS[word] for word in legacy.split(", ")))
        for number, special, legacy in rows
        if int(number) != NOT_OFFERED
    }


def test_the_table_of_roots() -> None:
    built: dict[int, set[tuple[str, str]]] = {}
    for row in ROWS:
        built.setdefault(int(row.name.split()[0]), set()).add((row.special, row.bare))
    said = documented()
    assert said.keys() == built.keys() == set(range(1, 17)) - {NOT_OFFERED}
    for number, chains in said.items():
        assert chains in built[number], f"row {number}: {chains}, built were {built[number]}"
