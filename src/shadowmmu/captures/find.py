# SPDX-License-Identifier: GPL-2.0-only
"""Finds captures: by path, or by name among those that come with the package or, all of them, with the source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from shadowmmu.border.limits import FILES
from shadowmmu.captures import kit, load
from shadowmmu.captures.capture import Capture
from shadowmmu.errors import BadInput

DEPTH = 4
"""Levels of folders that are looked through: kit folder, captures, set; and one above."""
PLACES = (Path(__file__).resolve().parent / "shipped", Path(__file__).resolve().parents[3] / "tests" / "conformance" / "captures")
SHIPPED = next((place for place in PLACES if place.is_dir()), PLACES[0]).resolve()
"""What an installed package has, or what the checkout has that it runs from."""


class Found(msgspec.Struct, frozen=True):
    """A capture that can be loaded."""

    name: str
    """`<set>/<guest>`."""
    path: Path
    """Its file, or the folder of its set as the capture kit wrote it."""

    @property
    def argument(self) -> str:
        """What the command line has to call it."""
        if self.path.is_relative_to(SHIPPED):
            return self.name
        return str(self.path / (self.guest + kit.EVENTS) if self.path.is_dir() else self.path)

    @property
    def guest(self) -> str:
        return self.name.rsplit("/", 1)[-1]

    def load(self) -> Capture:
        return kit.read_capture(self.path, self.guest) if self.path.is_dir() else load.load(self.path)


def find(wanted: str | None) -> list[Found]:
    """Captures that a file, a folder or a pattern names; None: all that are shipped."""
    if wanted is not None and os.path.exists(wanted):  # which is False, too, for what can be no path at all
        return _at(Path(wanted))
    every = list(_under(SHIPPED)) if SHIPPED.is_dir() else []
    if not every:
        raise BadInput(f"no captures at {SHIPPED}: name a file or folder, or install the package again")
    return every if wanted is None else _named(every, wanted, "or a path; shadowmmu captures lists them")


def find_all(wanted: Sequence[str], kit_folder: Path | None) -> list[Found]:
    """What a command names: of a folder of the capture kit's if there is one, or else of all that are shipped. No name: all."""
    if kit_folder is None:
        return [one for name in wanted for one in find(name)] if wanted else find(None)
    if not kit_folder.is_dir():
        raise BadInput(f"{kit_folder} is no folder: give the one that holds captures/ and guests/")
    every = _at(kit_folder)
    return [one for name in wanted for one in _named(every, name, f"of those in {kit_folder}")] if wanted else every


def _at(path: Path) -> list[Found]:
    found = list(_under(path))
    if not found:
        raise BadInput(f"{path} holds no capture: neither files *{load.SUFFIX} nor *{kit.EVENTS} of the capture kit")
    return found


def _named(every: Sequence[Found], wanted: str, among: str) -> list[Found]:
    """Those whose set/guest, set or guest is `wanted`, or whose set/guest is like it."""
    if not wanted:
        raise BadInput(f"a capture without a name: give set/guest, a pattern, a set, {among}")
    found = [one for one in every if wanted in (one.name, *one.name.split("/")) or fnmatch(one.name, wanted)]
    if not found:
        raise BadInput(f"no capture is named {wanted}: give set/guest as in {every[0].name}, a pattern, a set, {among}")
    return found


def _under(path: Path) -> Iterator[Found]:
    path = path.resolve()
    if path.name.endswith(kit.EVENTS):
        yield Found(f"{path.parent.name}/{path.name.removesuffix(kit.EVENTS)}", path.parent)
        return
    if not path.is_dir():
        yield Found(f"{path.parent.name}/{path.name.removesuffix(load.SUFFIX)}", path)
        return
    files = sorted(_files(path))
    for suffix in (load.SUFFIX, kit.EVENTS):
        for file in files:
            if file.name.endswith(suffix):
                name = f"{file.parent.name}/{file.name.removesuffix(suffix)}"
                yield Found(name, file if suffix == load.SUFFIX else file.parent)


def _files(folder: Path) -> Iterator[Path]:
    """Those not deeper than in a kit's folder: captures/<set>/NAME. A whole disk is not searched. Raises BadInput."""
    looked_at = 0
    for root, folders, files in os.walk(folder):
        looked_at += len(folders) + len(files)
        if looked_at > FILES:
            raise BadInput(f"{folder} has more than {FILES:,} files: name the folder that holds the captures")
        if len(Path(root).relative_to(folder).parts) == DEPTH - 1:
            folders.clear()
        yield from (Path(root, file) for file in files)
