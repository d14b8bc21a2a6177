# SPDX-License-Identifier: GPL-2.0-only
"""Copies of an engine, with a bug or of another checkout: only what changed is built again."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import chain
from pathlib import Path

import shadowmmu
from shadowmmu.border.files import read_file
from shadowmmu.border.limits import FILES, SOURCE, TREE
from shadowmmu.check.bugs.bug import Bug, apply, read_bug
from shadowmmu.check.bugs.signals import signals_raise
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
    if (path / "build" / "c").is_dir() and (path / "setup.py").is_file():
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
    """What a build needs. Raises BadInput for more than a checkout has."""
    left = TREE
    needed = [Path("setup.py"), Path("pyproject.toml"), Path("README.md")]
    for path in chain(needed, *(_regular(root, part) for part in ("src", "build/c"))):
        left -= (root / path).stat().st_size
        if left < 0:
            raise BadInput(f"{root}: its src/ and build/c/ have more than {TREE:,} bytes; name a checkout of shadowmmu")
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, into / path)


def _regular(root: Path, part: str) -> Iterator[Path]:
    """The regular files below a folder, relative to `root`. A pipe may never end, and a link may lead anywhere: these are no sources."""
    looked_at = 0
    for place, folders, names in os.walk(root / part):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.endswith(".egg-info")]
        looked_at += len(folders) + len(names)
        if looked_at > FILES:
            raise BadInput(f"{root / part} has more than {FILES:,} files; name a checkout of shadowmmu")
        paths = (Path(place, name) for name in names)
        yield from (path.relative_to(root) for path in paths if stat.S_ISREG(path.lstat().st_mode))


def _take_over(theirs: Path, ours: Path) -> None:
    """Only files that differ are written, so that only they are built again."""
    for path in _sources(ours) - _sources(theirs):
        (ours / path).unlink()
    for path in _sources(theirs):
        if _lines(theirs / path) != _lines(ours / path):
            (ours / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(theirs / path, ours / path)


def _sources(place: Path) -> set[Path]:
    return {path for path in _regular(place, "shadowmmu") if path.suffix in (".py", ".pxd")}


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return read_file(path, SOURCE, str(path), "name a checkout of shadowmmu, or a diff of src/").decode(errors="replace").splitlines()


def _changed(before: list[str], after: list[str]) -> Iterator[str]:
    """Functions that have a line which is not in both; "" where a line is in none."""
    for what, first, last, new, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if what != "equal":
            text, at = (after, max(new, end - 1)) if end > new else (before, max(first, last - 1))
            yield next((found[1] for line in reversed(text[: at + 1]) if (found := _FUNCTION.match(line))), "")


def _build(tree: Path, name: str) -> None:
    """What changed; the copy has what was built of the rest."""
    with signals_raise():
        built = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, capture_output=True, check=False)
    if built.returncode:
        said = built.stderr.decode(errors="replace").strip().splitlines()
        raise BadInput(f"{name}: does not compile: {said[-1] if said else 'no reason given'}")
