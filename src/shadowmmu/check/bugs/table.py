# SPDX-License-Identifier: GPL-2.0-only
"""The table of docs/bugs.md: what came of the last hunts of each bug. A hunt replaces the rows of the bugs that it hunted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

from shadowmmu.check.bugs.hunt import Verdict

HEAD = "| bug | found | rule | operations |\n|---|---|---|---|\n"
_ROW = re.compile(r"\| ([\w.-]+) \| (.*) \|")
_SUMMARY = re.compile(r"^\d+ bugs: .*\n", flags=re.M)


def with_rows(text: str, verdicts: Sequence[Verdict], known: set[str]) -> str:
    """The page with what came of these; rows of bugs that are not `known` any more go. Raises ValueError if it has no such table."""
    before, head, after = text.partition(HEAD)
    if not head:
        raise ValueError("it has no table with the columns bug, found, rule and operations")
    lines = after.split("\n")
    end = next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))
    rows = {found[1]: found[2] for line in lines[:end] if (found := _ROW.fullmatch(line)) and found[1] in known}
    rows |= {verdict.id: _cells(verdict) for verdict in verdicts}
    table = "".join(f"| {name} | {cells} |\n" for name, cells in sorted(rows.items()))
    return _SUMMARY.sub(lambda _: _summary(rows, len(known)) + "\n", before) + head + table + "\n".join(lines[end:])


def _cells(verdict: Verdict) -> str:
    """Of a bug found: in how many hunts, by which rules, and after how many operations in the one in the middle; of one missed, how
    many were done."""
    if verdict.unseen or verdict.reason:
        return f"{'cannot be seen' if verdict.unseen else 'does not fit'} | - | -"
    finds = verdict.finds or verdict.hunts
    rules = ", ".join(sorted({hunt.rule for hunt in finds} - {""})) or "-"
    return f"{len(verdict.finds)} of {len(verdict.hunts)} | {rules} | {int(median(hunt.operations for hunt in finds)):,}"


def _summary(rows: dict[str, str], known: int) -> str:
    cells = [row.split(" | ") for row in rows.values()]
    found = [int(row[2].replace(",", "")) for row in cells if row[0][0] not in "0cd"]
    missed, unseen = (sum(row[0].startswith(word) for row in cells) for word in ("0", "cannot"))
    half = f", half of them within {int(median(found)):,} operations" if found else ""
    rest = known - len(found) - missed - unseen
    return f"{known} bugs: {len(found)} found{half}; {missed} missed; {unseen} cannot be seen; {rest} not hunted yet."
