# SPDX-License-Identifier: GPL-2.0-only
"""Which functions of the engine are meant by a file, a name, or a patch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

from shadowmmu.check.bugs.bug import read_bug
from shadowmmu.errors import BadInput
from shadowmmu.runs.exercised.sources import ENGINE, PACKAGE, Function, is_compiled, module_of, places

_FILE = re.compile(r"^--- (?:\S*?/)?(engine/\S+).*\n\+\+\+ .*\n", flags=re.M)
_HUNK = re.compile(r"@@ -(\d{1,9})\b")


def meant(asked: str, here: frozenset[Function]) -> set[Function]:
    """The functions of FILE, FILE:FUNCTION or FUNCTION, or those that a patch changes. Raises BadInput for what the engine has not."""
    if Path(asked).suffix in (".diff", ".patch", ".toml"):
        return _changed_by(asked, here)
    file, _, name = asked.rpartition(":")
    if not file and Path(name).suffix in (".py", ".pxd"):
        return _in_file(name, here)
    among = _in_file(file, here) if file else here
    found = {function for function in among if name in (function.name, function.name.rpartition(".")[2])}
    if not found:
        raise BadInput(f"{file or 'the engine'} has no function {name!r}{_near(name, among)}")
    return found


def _in_file(asked: str, here: frozenset[Function]) -> set[Function]:
    parts = Path(asked).parts
    ends = parts[parts.index("engine") :] if "engine" in parts else parts
    files = [file for end in ("*.py", "*.pxd") for file in ENGINE.rglob(end) if file.parts[-len(ends) :] == ends]
    if not files:
        raise BadInput(f"{asked} is no file of the engine: name one below {ENGINE.relative_to(PACKAGE.parent)}/, with or without folders")
    found = {function for file in files for function in here if function.module == module_of(file)}
    if not found:
        why = "has no functions" if any(map(is_compiled, files)) else "is not compiled, and what reaches it is not recorded"
        raise BadInput(f"{asked} {why}: name another file")
    return found


def _near(name: str, among: Iterable[Function]) -> str:
    close = get_close_matches(name, [function.name for function in among], 1)
    return f": did you mean {close[0]}?" if close else ": grep for it in the engine's sources"


def _changed_by(asked: str, here: frozenset[Function]) -> set[Function]:
    """Those that a diff of src/ changes, or a known bug's file."""
    bug = read_bug(Path(asked))
    names, lines = {edit.function for edit in bug.edit}, set(_changed_lines(bug.diff))
    changed = {place.function for place in places() if any((place.file, line) in lines for line in range(place.first, place.last + 1))}
    found = changed | {function for function in here if function.name.rpartition(".")[2] in names}
    if not found:
        raise BadInput(f"{asked} changes no compiled function of the engine: name a file of the engine, or a function")
    return found


def _changed_lines(diff: str) -> Iterator[tuple[str, int]]:
    """File and line, as they were before; of what is added the line before it."""
    _, *parts = _FILE.split(diff)
    for file, hunks in zip(parts[::2], parts[1::2], strict=True):
        line = 0
        for text in hunks.splitlines():
            hunk = _HUNK.match(text)
            if hunk:
                line = int(hunk[1])
            elif text.startswith("-"):
                yield file, line
                line += 1
            elif text.startswith("+"):
                yield file, line - 1
            else:
                line += 1
