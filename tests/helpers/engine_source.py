# SPDX-License-Identifier: GPL-2.0-only
"""The engine's source as text: its functions, whom they call, and which events they emit."""

from __future__ import annotations

import re
from pathlib import Path

SRC = Path(__file__).parents[2] / "src" / "shadowmmu"
ENGINE = SRC / "engine"
_DEFINITION = re.compile(r"^ *(?:def|cdef(?: inline)?(?: const)? [\w ]+?\*?|cpdef [\w ]+?)\s*\*?(\w+)\(", flags=re.M)


def functions(room: str = "engine") -> dict[str, str]:
    """`module.function` -> its text, from the .py files of a room and the inline ones of the .pxd files."""
    found: dict[str, str] = {}
    for path in sorted([*(SRC / room).rglob("*.py"), *(SRC / room).rglob("*.pxd")]):
        text = path.read_text()
        heads = list(_DEFINITION.finditer(text))
        bounds = [*(head.start() for head in heads), len(text)]
        for i, head in enumerate(heads):
            body = text[bounds[i] : bounds[i + 1]]
            if ":\n" in body:  # else it is a declaration
                found[f"{path.stem}.{head[1]}"] = body
    return found


def callees(functions: dict[str, str]) -> dict[str, set[str]]:
    """`module.function` -> the engine's functions that it names before a parenthesis, whichever module they are of."""
    by_name: dict[str, set[str]] = {}
    for name in functions:
        by_name.setdefault(name.partition(".")[2], set()).add(name)
    return {
        name: {target for word in re.findall(r"(\w+)\(", body.partition("\n")[2]) for target in by_name.get(word, ())}
        for name, body in functions.items()
    }


def reaches(calls: dict[str, set[str]], start: str, goal: str) -> bool:
    """Whether `start` calls `goal`, directly or through others."""
    seen, left = {start}, [start]
    while left:
        name = left.pop()
        if name == goal:
            return True
        left += calls[name] - seen
        seen |= calls[name]
    return False
