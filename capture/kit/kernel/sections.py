# SPDX-License-Identifier: GPL-2.0-only
"""Code and data of two ELF objects, section by section: their bytes, and what the linker puts into them."""

from __future__ import annotations

import re
import struct
from collections import Counter
from io import BytesIO
from typing import NamedTuple

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

BUILD_ID = ".note.gnu.build-id"
"""Hashes the debugging sections too, which are left out here."""
OF_THE_BUILD = (BUILD_ID, ".BTF", ".BTF_ids", "__versions", ".modinfo", ".gnu.linkonce.this_module")
"""What tells of the build, and is neither code nor data: types and their numbers, where it was made, checksums of declarations."""
READ_ONLY = ".rodata"
PLACE = re.compile(rb"^/.*/(?=(?:arch|include|virt)/)")
"""Of a source file on the machine that built it: the sanitizer's reports name it, and no option of gcc-14 changes that."""
Relocation = tuple[int, int, str, int]
"""Where, of which type, to which symbol or section, and how far behind it."""


class Compared(NamedTuple):
    sections: list[str]
    """Names of those that differ, or that one of the two lacks."""
    compared: int
    """Bytes that are equal."""
    renamed: int
    """Names of source files that differ in the place of the tree alone; they count as equal."""


class Loaded(NamedTuple):
    """What a module brings into memory."""

    content: dict[str, bytes]
    relocations: dict[str, list[Relocation]]
    """By the section that they change."""


def differing(one: bytes, other: bytes) -> Compared:
    left, right = loaded(one), loaded(other)
    names = sorted(left.content.keys() | right.content.keys())
    differ = [name for name in names if left.content.get(name) != right.content.get(name)]
    renamed = _renamed(left.content.get(READ_ONLY, b""), right.content.get(READ_ONLY, b"")) if READ_ONLY in differ else 0
    if renamed:
        differ.remove(READ_ONLY)
    differ += [name for name in names if name not in differ and _linked(left, name, renamed) != _linked(right, name, renamed)]
    return Compared(differ, sum(len(right.content[name]) for name in names if name not in differ), renamed)


def _renamed(left: bytes, right: bytes) -> int:
    """How many pieces between zeros differ, if all of them are the same files at another place."""
    one, other = (Counter(piece for piece in data.split(b"\0") if piece) for data in (left, right))
    mine, theirs = ((some - rest).elements() for some, rest in ((one, other), (other, one)))
    named = [Counter(PLACE.sub(b"", piece) for piece in pieces) for pieces in (mine, theirs)]
    return sum(named[0].values()) if named[0] == named[1] else 0


def _linked(module: Loaded, name: str, renamed: int) -> list[Relocation]:
    """A section's relocations; where read-only data is not at the same place, without the place."""
    found = module.relocations.get(name, [])
    return sorted((at, kind, target, 0 if renamed and target == READ_ONLY else addend) for at, kind, target, addend in found)


def loaded(data: bytes) -> Loaded:
    file = ELFFile(BytesIO(data))
    names = [section.name for section in file.iter_sections()]
    wanted = {
        index
        for index, section in enumerate(file.iter_sections())
        if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section["sh_type"] != "SHT_NOBITS" and section.name not in OF_THE_BUILD
    }
    symbols = file.get_section_by_name(".symtab")
    targets = _targets(symbols, names) if isinstance(symbols, SymbolTableSection) else []
    relocations = {
        names[section["sh_info"]]: [
            (at, info & 0xFFFFFFFF, targets[info >> 32], addend) for at, info, addend in struct.iter_unpack("<QQq", section.data())
        ]
        for section in file.iter_sections()
        if section["sh_type"] == "SHT_RELA" and section["sh_info"] in wanted
    }
    return Loaded({names[index]: file.get_section(index).data() for index in wanted}, relocations)


def _targets(symbols: SymbolTableSection, names: list[str]) -> list[str]:
    """The name of each symbol, or of the section that it stands for."""
    return [names[symbol["st_shndx"]] if symbol["st_info"]["type"] == "STT_SECTION" else symbol.name for symbol in symbols.iter_symbols()]
