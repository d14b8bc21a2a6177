# SPDX-License-Identifier: GPL-2.0-only
"""The lines of source that Cython's C is made of. Before the C of each of them stands a comment that names it."""

from __future__ import annotations

import re
from pathlib import Path

MARK = re.compile(r'^ *(?:\* |/\* )"(shadowmmu/[\w/]+\.(?:py|pxd))":(\d+)$')
"""A comment that says which line the C behind it is made of."""
END = re.compile(r"^}$")
"""Behind it comes C that is no function's of the source."""
EXIT = re.compile(r"^  /\* function exit code \*/$|^}$")
"""Behind it comes C that is no line's."""


def origins(c: Path, end: re.Pattern[str] = EXIT) -> list[tuple[str, int] | None]:
    """The line of source behind each line of C, as far as what matches `end`."""
    found: list[tuple[str, int] | None] = [None]
    here: tuple[str, int] | None = None
    for line in c.read_text().splitlines():
        mark = MARK.match(line)
        here = (mark[1], int(mark[2])) if mark else here
        found.append(here)
        if end.match(line):
            here = None
    return found
