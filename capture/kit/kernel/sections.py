# SPDX-License-Identifier: GPL-2.0-only
"""Code and data of two ELF objects, section by section."""

from __future__ import annotations

import struct
from typing import NamedTuple

NOBITS, ALLOCATED = 8, 2
BUILD_ID = ".note.gnu.build-id"
"""Hashes the debugging sections too, which are left out here."""
OF_THE_BUILD = (BUILD_ID, ".BTF", "__versions", ".modinfo", ".gnu.linkonce.this_module")
"""What tells of the build, and is neither code nor data: where it was made, and checksums of declarations."""
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")


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
    header = _HEADER.unpack_from(data)
    offset, size, count, names_at = header[6], header[11], header[12], header[13]
    rows = [_SECTION.unpack_from(data, offset + i * size) for i in range(count)]
    names = data[rows[names_at][4] :]
    found: dict[str, bytes] = {}
    for name_at, kind, flags, _, at, length, *_ in rows:
        name = names[name_at : names.index(b"\0", name_at)].decode()
        if flags & ALLOCATED and kind != NOBITS and name not in OF_THE_BUILD:
            found[name] = data[at : at + length]
    return found
