# SPDX-License-Identifier: GPL-2.0-only
"""What an image of the suite printed: a verdict a line, and how it left."""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal, get_args

import msgspec

Verdict = Literal["PASS", "FAIL", "SKIP", "XFAIL", "XPASS"]
SKIPPED = 77 >> 1
"""What an image writes to the exit port if it skipped all it has."""
_LINE = re.compile(r"^(PASS|FAIL|SKIP|XFAIL|XPASS)(?:: ?(.*))?$")
_VERDICTS: dict[str, Verdict] = {word: word for word in get_args(Verdict)}
_BAD = ("FAIL", "XPASS")


class SubTest(msgspec.Struct, frozen=True):
    verdict: Verdict
    name: str

    @property
    def failed(self) -> bool:
        return self.verdict in _BAD


def sub_tests(output: str) -> list[SubTest]:
    """In the order of their lines."""
    found = (_LINE.match(line.rstrip("\r")) for line in output.split("\n"))
    return [SubTest(_VERDICTS[match[1]], match[2] or "") for match in found if match is not None]


def failed_beside(tests: list[SubTest], others: list[SubTest]) -> dict[str, Verdict | None]:
    """Name of each sub-test that failed -> what became of it in another run; None: it is not there."""
    there = {test.name: test.verdict for test in others}
    return {test.name: there.get(test.name) for test in tests if test.failed}


def same_failures(one: list[SubTest], other: list[SubTest]) -> list[str]:
    """Names of sub-tests that failed in both."""
    left = Counter(test.name for test in other if test.failed)
    same = []
    for test in one:
        if test.failed and left[test.name] > 0:
            left[test.name] -= 1
            same.append(test.name)
    return same
