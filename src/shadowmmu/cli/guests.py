# SPDX-License-Identifier: GPL-2.0-only
"""`shadowmmu guests`, and guests by name: shipped inside the package, or in the checkout that the package runs from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from shadowmmu.cli.output import console, print_json
from shadowmmu.errors import BadInput
from shadowmmu.look.root_chain import Paging, RootPicture, picture, shadow_paging
from shadowmmu.machine.loader import Guest, read_guest
from shadowmmu.view.draw_lists import draw_guests

PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "guests", PACKAGE.parents[1] / "guests")
LEVELS = {"nonpaging": 0, "2-level": 2, "pae": 3, "4-level": 4, "5-level": 5}
WORDS = {"pae": "PAE"}
CPU = Paging(4, 4)
"""The nested tables of the machine's CPU have four levels."""


class ListedGuest(msgspec.Struct, kw_only=True):
    """A guest that has a name. `roots`: the sorts of roots that it is about."""

    name: str
    title: str
    description: str
    features: tuple[str, ...]
    vcpus: int
    memory_mib: int
    roots: list[RootPicture]


class Guests(msgspec.Struct):
    guests: list[ListedGuest]


def guests(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """List the guests that have a name, with the roots that they are about.

    Any of them, or the path of a TOML description or an image, is what run, show and compare take.

    Example: shadowmmu guests

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    listed = Guests([_listed(name, read_guest(file)) for name, file in sorted(guest_files().items())])
    if json:
        print_json("shadowmmu.guests/1", listed)
    else:
        console().print(draw_guests(listed.guests))
    return 0


def _listed(name: str, guest: Guest) -> ListedGuest:
    return ListedGuest(
        name=name,
        title=guest.title,
        description=guest.description.strip(),
        features=guest.features,
        vcpus=guest.vcpus,
        memory_mib=guest.memory_mib,
        roots=list(_roots(guest)),
    )


def _roots(guest: Guest) -> Iterator[RootPicture]:
    levels, mode = LEVELS.get(guest.mode, 0), WORDS.get(guest.mode, guest.mode)
    if "npt" in guest.features:
        yield picture(f"L2 on {mode} nested tables", Paging(levels, CPU.walked))
    else:
        yield picture(f"{mode} guest", shadow_paging(levels))
        if "svm" in guest.features:
            yield picture(f"{mode} L2 without nested paging", shadow_paging(levels))


def guest_files() -> dict[str, Path]:
    """The named guests and their TOML files."""
    return {file.stem: file for place in reversed(PLACES) for file in sorted(place.glob("*.toml"))}


def guest_path(name: str) -> Path:
    """The TOML file or image of the guest called `name`, or of that path."""
    files = guest_files()
    if name in files:
        return files[name]
    if not os.path.exists(name):  # False, too, for what can be no path at all
        raise BadInput(f"no guest {name!r}: name one of {', '.join(files) or '(none installed)'}, or the path of a TOML file or image")
    return Path(name)


def find_guest(name: str) -> Guest:
    """The guest called `name`, or the one in the TOML file or image of that path."""
    return read_guest(guest_path(name))
