# SPDX-License-Identifier: GPL-2.0-only
"""Names of places in a guest, from the symbol table of its ELF image."""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from itertools import islice
from typing import NamedTuple

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section

from shadowmmu.border.files import parsing
from shadowmmu.border.limits import NAME, SECTIONS, SEGMENTS, SYMBOLS
from shadowmmu.errors import BadInput

_REACH = 1 << 16  # bytes behind a symbol without a size that may still be its
_CODE = (0, 2)  # symbol types: none, as in assembly, and function


class _Symbol(NamedTuple):
    address: int
    size: int
    name: int
    """Where it stands among the names."""


class Symbols:
    """Of an image that is none, or has no table that can be read, no place has a name.

    A place may be given as the address it is linked at or, for code that runs before its paging is on, loaded at.
    """

    def __init__(self, image: bytes) -> None:
        self._symbols: list[_Symbol] = []
        self._names = b""
        self._loaded: list[tuple[int, int, int]] = []  # physical, virtual, bytes
        with suppress(BadInput), parsing("its symbols", "none are shown", (ELFError, ConstructError, struct.error)):
            self._read(ELFFile(BytesIO(image)), image)
        self._addresses = [symbol.address for symbol in self._symbols]

    def _read(self, elf: ELFFile, image: bytes) -> None:
        self._loaded = [(s["p_paddr"], s["p_vaddr"], s["p_memsz"]) for s in islice(elf.iter_segments("PT_LOAD"), SEGMENTS)]
        for section in islice(elf.iter_sections(), SECTIONS):
            if section["sh_type"] == "SHT_SYMTAB":
                self._names = _content(image, elf.get_section(section["sh_link"]))
                self._symbols = sorted(_entries(_content(image, section), elf.elfclass, self._names))
                return

    def name(self, address: int) -> str:
        """`symbol+0x12`, or nothing."""
        found = self._name(address)
        for physical, virtual, size in self._loaded:
            if not found and physical <= address < physical + size:
                found = self._name(address - physical + virtual)
        return found

    def _name(self, address: int) -> str:
        at = bisect_right(self._addresses, address) - 1
        if at < 0:
            return ""
        symbol = self._symbols[at]
        offset = address - symbol.address
        if offset >= (symbol.size or _REACH):
            return ""
        text = self._names[symbol.name : symbol.name + NAME].partition(b"\0")[0].decode("ascii", "replace")
        name = "".join(c if c.isprintable() else "?" for c in text)
        return name + (f"+{offset:#x}" if offset else "")


def _content(image: bytes, section: Section) -> bytes:
    """What the file has of it. The library would make as many zeroes, or unpack as much, as the section says."""
    return image[section["sh_offset"] : section["sh_offset"] + section["sh_size"]]


def _entries(table: bytes, elf_class: int, names: bytes) -> Iterator[_Symbol]:
    """The defined code symbols that have a name."""
    layout = struct.Struct("<IIIBBH" if elf_class == 32 else "<IBBHQQ")
    table = table[: min(len(table) // layout.size, SYMBOLS) * layout.size]
    for fields in layout.iter_unpack(table):
        name, address, size, info, _, section = fields if elf_class == 32 else (fields[0], *fields[4:], fields[1], fields[2], fields[3])
        if section and info & 15 in _CODE and name < len(names) and names[name]:
            yield _Symbol(address, size, name)
