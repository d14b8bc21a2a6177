# SPDX-License-Identifier: GPL-2.0-only
"""Code and data of two ELF objects, section by section."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

BUILD_ID = ".note.gnu.build-id"
"""Hashes the debugging sections too, which are left out here."""
OF_THE_BUILD = (BUILD_ID, ".BTF", "__versions", ".modinfo", ".gnu.linkonce.this_module")
"""What tells of the build, and is neither code nor data: where it was made, and checksums of declarations."""


class Compared(NamedTuple):
    sections: list[str]
    """Names of those that differ, or that one of the two lacks."""
    compared: int
    """Bytes that are equal."""


def differing(one: bytes, other: bytes) -> Compared:
    """The sections that are loaded."""
    left, right = loaded(one), loaded(other)
    names = sorted(left.keys() | right.keys())
    differ = [name for name in names if left.get(name) != right.get(name)]
    return Compared(differ, sum(len(left[name]) for name in names if name not in differ))


def loaded(data: bytes) -> dict[str, bytes]:
    """Name -> content of the sections that a module brings into memory."""
    return {
        section.name: section.data()
        for section in ELFFile(BytesIO(data)).iter_sections()
        if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section["sh_type"] != "SHT_NOBITS" and section.name not in OF_THE_BUILD
    }
