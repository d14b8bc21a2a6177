# SPDX-License-Identifier: GPL-2.0-only
"""Edits of a kernel's source, each anchored in a function or struct by a pattern that must be there exactly once."""

from __future__ import annotations

import re
from difflib import unified_diff
from pathlib import Path
from typing import NamedTuple

from kit.errors import KitError

COMMENT = r"\t+/\*(?:(?!\*/).)*\*/\n"
"""A comment on lines of its own, for patterns."""


class Edit(NamedTuple):
    """One change of one definition."""

    file: str
    """Below arch/x86/."""
    name: str
    """The function, or "struct NAME"."""
    old: str
    """A regular expression, found in the definition exactly once; empty: in front of the definition; WHOLE: all of it."""
    new: str
    """What stands there instead; may refer to groups of `old`."""
    why: str
    """The requirement or hazard of docs/rules.md that asks for it, and how."""


WHOLE = r"\A.*\Z"


class Lines(NamedTuple):
    """How much of the kernel's own files changes."""

    added: int
    removed: int


def apply(edits: tuple[Edit, ...], tree: Path) -> Lines:
    """Make all edits below `tree`, which holds arch/x86/. Nothing is written unless each finds its place."""
    texts: dict[str, str] = {}
    for edit in edits:
        if edit.file not in texts:
            texts[edit.file] = (tree / "arch/x86" / edit.file).read_text()
        texts[edit.file] = edited(texts[edit.file], edit)
    changed = []
    for file, text in texts.items():
        path = tree / "arch/x86" / file
        changed += list(unified_diff(path.read_text().splitlines(), text.splitlines(), n=0, lineterm=""))[2:]
        path.write_text(text)
    return Lines(sum(line.startswith("+") for line in changed), sum(line.startswith("-") for line in changed))


def edited(text: str, edit: Edit) -> str:
    """The source after one edit. Raises KitError if it is not the source that the edit is for."""
    start, end = _definition(text, edit)
    if not edit.old:
        return text[:start] + edit.new + text[start:]
    body, count = re.subn(edit.old, edit.new, text[start:end], flags=re.DOTALL)
    if count != 1:
        raise KitError(f"{edit.file}: {edit.name} has {edit.old!r} {count} times, not once: {_REMEDY}")
    return text[:start] + body + text[end:]


_REMEDY = "the edits are for Debian's Linux 6.1.170 to 6.1.192, 6.12.117 and 7.3.4"


def _definition(text: str, edit: Edit) -> tuple[int, int]:
    """Where a function or a struct begins and ends."""
    kind, _, name = edit.name.rpartition(" ")
    head = rf"^struct {re.escape(name)} " if kind else rf"^[A-Za-z_][^;{{}}#]*?\b{re.escape(name)}(?=\()[^;{{}}]*?\n"
    found = list(re.finditer(head + r"\{\n.*?^\};?\n", text, re.MULTILINE | re.DOTALL))
    if len(found) != 1:
        raise KitError(f"{edit.file} has {len(found)} definitions of {edit.name}, not one: {_REMEDY}")
    return found[0].span()
