# SPDX-License-Identifier: GPL-2.0-only
"""Copies of an engine, with a bug or of another checkout: only what changed is built again."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import shadowmmu
from shadowmmu.check.bugs.bug import Bug, apply, read_bug
from shadowmmu.errors import BadInput

_FUNCTION = re.compile(r"(?:@\w|)(?:cdef inline .*?\b|def |class )(\w+)\s*[(:]")


def checkout() -> Path:
    """Where the sources are from which this engine was built; an installed package has none."""
    root = Path(shadowmmu.__file__).parents[2]
    if not (root / "setup.py").exists() or not (root / "build" / "c").exists():
        raise BadInput("bugs are put into the engine's sources: run this from a checkout in which `make` has built it")
    return root


def find_bug(name: str) -> Bug:
    """A bug of the museum, or a file. Raises BadInput."""
    path = Path(name)
    if not path.suffix:
        path = checkout() / "bugs" / f"{name}.toml"
        if not path.exists():
            raise BadInput(f"{name}: no such file or folder, and the museum has no such bug; `ls bugs` lists them")
    return read_bug(path)


def copy_with(bug: Bug, into: Path) -> None:
    """The engine with the bug, built; raises BadInput if it does not fit or does not compile."""
    _copy(checkout(), into)
    apply(bug, into)
    _build(into, bug.id)


def copy_of(path: Path, into: Path) -> None:
    """The engine of another checkout, built; of one that is built itself, what is there is taken along. Raises BadInput."""
    if not (path / "src" / "shadowmmu" / "engine").is_dir():
        raise BadInput(
            f"{path} is no checkout of shadowmmu: it has no src/shadowmmu/engine; name the folder with your patch, or a diff of src/"
        )
    if (path / "build" / "c").exists() and (path / "setup.py").exists():
        _copy(path, into)
    else:
        _copy(checkout(), into)
        _take_over(path / "src", into / "src")
    if not changed_functions(into):
        raise BadInput(f"{path}: nothing in its src/ differs from the engine here: name a checkout or a diff with a change")
    _build(into, str(path))


def changed_functions(tree: Path) -> list[str]:
    """`module.function` of each that is not as in this checkout; a file's own name where it is no function."""
    ours = checkout() / "src"
    names: dict[str, None] = {}
    for path in sorted(_sources(ours) | _sources(tree / "src")):
        before, after = (_lines(place / path) for place in (ours, tree / "src"))
        if before != after:
            names.update(dict.fromkeys(f"{path.stem}.{name}" if name else str(path) for name in _changed(before, after)))
    return list(names)


def _copy(root: Path, into: Path) -> None:
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy2(root / name, into)
    shutil.copytree(root / "src", into / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(root / "build" / "c", into / "build" / "c")


def _take_over(theirs: Path, ours: Path) -> None:
    """Only files that differ are written, so that only they are built again."""
    for path in _sources(ours) - _sources(theirs):
        (ours / path).unlink()
    for path in _sources(theirs):
        if _lines(theirs / path) != _lines(ours / path):
            (ours / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(theirs / path, ours / path)


def _sources(place: Path) -> set[Path]:
    return {path.relative_to(place) for end in ("py", "pxd") for path in place.rglob(f"shadowmmu/**/*.{end}")}


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def _changed(before: list[str], after: list[str]) -> Iterator[str]:
    """Functions that have a line which is not in both; "" where a line is in none."""
    for what, first, last, new, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if what != "equal":
            text, at = (after, max(new, end - 1)) if end > new else (before, max(first, last - 1))
            yield next((found[1] for line in reversed(text[: at + 1]) if (found := _FUNCTION.match(line))), "")


def _build(tree: Path, name: str) -> None:
    """What changed; the copy has what was built of the rest."""
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, capture_output=True, text=True, check=False
    )
    if built.returncode:
        said = built.stderr.strip().splitlines()
        raise BadInput(f"{name}: does not compile: {said[-1] if said else 'no reason given'}")
