"""Finds captures: by path, or by name among those that come with the package or, all of them, with the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from shadowmmu.captures import kit, load
from shadowmmu.captures.capture import Capture
from shadowmmu.errors import BadInput

DEPTH = 4
"""Levels of folders that are looked through: kit folder, captures, set; and one above."""
PLACES = (Path(__file__).resolve().parent / "shipped", Path(__file__).resolve().parents[3] / "tests" / "conformance" / "captures")
SHIPPED = next((place for place in PLACES if place.is_dir()), PLACES[0])
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
        return str(self.path if self.path.is_file() else self.path / (self.guest + kit.EVENTS))

    @property
    def guest(self) -> str:
        return self.name.rsplit("/", 1)[-1]

    def load(self) -> Capture:
        if self.path.is_file():
            return load.load(self.path)
        return kit.read_capture(self.path, self.guest)


def find(wanted: str | None) -> list[Found]:
    """Captures that a file, a folder or a pattern names; None: all that are shipped."""
    if wanted == "":
        raise BadInput("a capture without a name: give set/guest, a pattern, a set, or a path")
    if wanted is not None and Path(wanted).exists():
        found = list(_under(Path(wanted)))
        if not found:
            raise BadInput(f"{wanted} holds no capture: neither files *{load.SUFFIX} nor *{kit.EVENTS} of the capture kit")
        return found
    every = list(_under(SHIPPED)) if SHIPPED.is_dir() else []
    if not every:
        raise BadInput(f"no captures at {SHIPPED}: name a file or folder, or install the package again")
    if wanted is None:
        return every
    found = [one for one in every if fnmatch(one.name, wanted) or one.name.split("/")[0] == wanted or one.name.split("/")[1] == wanted]
    if not found:
        raise BadInput(f"no capture is named {wanted}: give set/guest as in {every[0].name}, a pattern, a set, or a path")
    return found


def find_all(wanted: Sequence[str], kit_folder: Path | None, every: bool) -> list[Found]:
    """What a command names, with a folder of the capture kit's; without any name, or with `every`, all that are shipped."""
    if kit_folder is not None and not kit_folder.is_dir():
        raise BadInput(f"{kit_folder} is no folder: give the one that holds captures/ and guests/")
    found = [one for name in wanted for one in find(name)]
    if kit_folder is not None:
        found += find(str(kit_folder))
    return found if wanted or (kit_folder is not None and not every) else found + find(None)


def _under(path: Path) -> Iterator[Found]:
    path = path.resolve()
    if path.name.endswith(kit.EVENTS):
        yield Found(f"{path.parent.name}/{path.name.removesuffix(kit.EVENTS)}", path.parent)
        return
    if path.is_file():
        yield Found(f"{path.parent.name}/{path.name.removesuffix(load.SUFFIX)}", path)
        return
    for file in sorted(_files(path, load.SUFFIX)):
        yield Found(f"{file.parent.name}/{file.name.removesuffix(load.SUFFIX)}", file)
    for folder in sorted({file.parent for file in _files(path, kit.EVENTS)}):
        for name in kit.names(folder):
            yield Found(f"{folder.name}/{name}", folder)


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    """Those not deeper than in a kit's folder: captures/<set>/NAME. A whole disk is not searched."""
    return (file for depth in range(DEPTH) for file in folder.glob("*/" * depth + "*" + suffix))
