# SPDX-License-Identifier: GPL-2.0-only
"""A bug: a TOML file of the museum, or a unified diff from elsewhere.

An edit is addressed by the function it is in and the text it replaces there, so that a file that moves takes its bugs
along, and one that no longer fits is an error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import msgspec

from shadowmmu.border.files import parsing, read_file
from shadowmmu.border.limits import BUG
from shadowmmu.check.fuzz import MODES
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.errors import BadInput

SOURCES = "src/shadowmmu/"
"""What a diff may change: how the copy is built is not its business."""
REMEDY = "a bug is a .toml file as in bugs/, or a unified diff of src/"


class Edit(msgspec.Struct, forbid_unknown_fields=True):
    """In `function`, put `new` where `old` stands, once."""

    function: str
    old: str
    new: str


class Bug(msgspec.Struct, forbid_unknown_fields=True):
    """`breaks`: what goes wrong, and for a host. `known`: the commit, CVE or hazard. `roots`: the design it shows in alone.

    unseen  why no rule can see it, whatever a guest does
    """

    title: str
    breaks: str
    edit: list[Edit]
    known: str = ""
    rule: str = ""
    roots: str = ""
    unseen: str = ""
    modes: list[str] = []
    id: str = ""
    diff: str = ""


def read_bug(path: Path) -> Bug:
    """A museum's file, or a diff of `src/`; raises BadInput for what is neither."""
    text = read_file(path, BUG, str(path), REMEDY).decode(errors="replace")
    if path.suffix != ".toml":
        if not re.search(r"^@@ ", text, flags=re.M):
            raise BadInput(f"{path} is no unified diff: {REMEDY}")
        return Bug(title=path.stem, breaks="", edit=[], id=path.stem, diff=text)
    with parsing(str(path), REMEDY):
        bug = msgspec.convert(tomllib.loads(text), Bug)
    if bug.roots and bug.roots not in ROOT_DESIGNS:
        raise BadInput(f"{path}: there are no {bug.roots!r} roots: give one of {', '.join(ROOT_DESIGNS)}")
    if unknown := [mode for mode in bug.modes if mode not in MODES]:
        raise BadInput(f"{path}: there is no mode {unknown[0]!r}: give any of {', '.join(MODES)}")
    bug.id = path.stem
    return bug


def apply(bug: Bug, tree: Path) -> None:
    """Put the bug into the engine below `tree`; raises BadInput for an edit that does not fit."""
    if bug.diff:
        if shutil.which("git") is None:
            raise BadInput(f"{bug.id}: there is no git to apply the diff with: apt install git")
        for line in _git_apply(bug, tree, "--numstat", "-z").split("\0"):
            path = line.rpartition("\t")[2]
            if path and not path.startswith(SOURCES):
                raise BadInput(f"{bug.id}: the diff changes {path}: give one that changes nothing but {SOURCES}")
        _git_apply(bug, tree)
    for edit in bug.edit:
        _apply_edit(bug.id, edit, tree)


def _git_apply(bug: Bug, tree: Path, *options: str) -> str:
    alone = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.parent)}  # or git takes paths from the top of a repository around it
    done = subprocess.run(
        ["git", "apply", "-p1", *options, "-"], cwd=tree, env=alone, input=bug.diff.encode(), capture_output=True, check=False
    )
    if done.returncode:
        raise BadInput(f"{bug.id}: the diff does not apply: {' '.join(done.stderr.decode(errors='replace').split())}")
    return done.stdout.decode(errors="replace")


def _apply_edit(name: str, edit: Edit, tree: Path) -> None:
    start = re.compile(rf"^(cdef inline .*\b|def ){re.escape(edit.function)}\(", flags=re.M)
    for path in sorted(path for end in ("py", "pxd") for path in (tree / "src" / "shadowmmu" / "engine").rglob(f"*.{end}")):
        text = path.read_text()
        found = start.search(text)
        if found is None:
            continue
        after = re.compile(r"^(def |cdef |@|class )", flags=re.M).search(text, found.end())
        end = after.start() if after else len(text)
        body = text[found.start() : end]
        if body.count(edit.old) != 1:
            raise BadInput(f"{name}: {edit.function} has {edit.old!r} {body.count(edit.old)} times, not once")
        path.write_text(text[: found.start()] + body.replace(edit.old, edit.new) + text[end:])
        return
    raise BadInput(f"{name}: the engine has no function {edit.function}")
