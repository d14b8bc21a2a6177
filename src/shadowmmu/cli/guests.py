"""Guests by name: shipped inside the package, or in the checkout that the package runs from."""

from __future__ import annotations

import os
from pathlib import Path

from shadowmmu.errors import BadInput
from shadowmmu.machine.loader import Guest, read_guest

PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "guests", PACKAGE.parents[1] / "guests")


def guest_files() -> dict[str, Path]:
    """The named guests and their TOML files."""
    return {file.stem: file for place in reversed(PLACES) for file in sorted(place.glob("*.toml"))}


def find_guest(name: str) -> Guest:
    """The guest called `name`, or the one in the TOML file or image of that path."""
    files = guest_files()
    if name in files:
        return read_guest(files[name])
    if not os.path.exists(name):  # False, too, for what can be no path at all
        raise BadInput(f"no guest {name!r}: name one of {', '.join(files) or '(none installed)'}, or the path of a TOML file or image")
    return read_guest(name)
