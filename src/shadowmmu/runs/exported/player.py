# SPDX-License-Identifier: GPL-2.0-only
"""The player: its image with the steps of one list, as an ELF file, and the entries that it needs in a root of the list's own.

It runs on the tables of the list, as a kernel does on those of its processes: what it needs is one entry of each root (three of a
32-bit directory) that no address of the fuzz's has in common with it. The list stores it there before it loads the root.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

from shadowmmu.runs.exported.steps import STEP, Step

PAGE = 4096
AT = 0x90000000
"""Where its image lies, and where it runs with paging off, under 2-level and under PAE paging."""
PAGES = 512
STEPS_IN_PAGE = PAGE // STEP.size
BASES = {0: AT, 2: AT, 3: AT, 4: 0x400010000000, 5: 0x80000010000000}
"""Levels of paging -> where it runs."""
_DEVICE, _DEVICE_AT, _DIRECT = 0xFF000000, 0x200000, 0x800000
_PDPTE, _ENTRY, _ENTRY_32 = 2, 128, 0x240
_TABLE = 0x27  # present, writable, user, accessed
_ELF, _SEGMENT = struct.Struct("<4sBBBB8xHHIIIIIHHHHHH"), struct.Struct("<8I")
_ADDRESSES = struct.Struct("<5I")

Store = tuple[int, int, int]
"""Guest-physical address, bytes, value."""


@cache
def _image() -> bytes:
    return Path(__file__).with_name("player.img").read_bytes()


@cache
def _addresses() -> tuple[int, int, int, int, int]:
    """What a root leads to: of four levels, of five, of PAE, and the first of three tables of 32-bit paging; the page of ring 3."""
    pdpt, pml4, directory, table_32, user = _ADDRESSES.unpack(_image()[-_ADDRESSES.size :])
    return pdpt, pml4, directory, table_32, user


def needs(levels: int, cr3: int) -> list[Store]:
    """What the player needs in the root at `cr3`."""
    pdpt, pml4, directory, table_32, _ = _addresses()
    root = cr3 & 0xFFFFF000
    if levels == 2:
        places = (0, 0), (2, PAGE), (3, 2 * PAGE)
        return [(root + 4 * (_ENTRY_32 + entry), 4, table_32 + at | _TABLE) for entry, at in places]
    if levels == 3:
        return [((cr3 & 0xFFFFFFE0) + 8 * _PDPTE, 8, directory | 1)]
    return [(root + 8 * _ENTRY, 8, (pdpt if levels == 4 else pml4) | _TABLE)]


def direct(levels: int, gpa: int) -> int:
    """Where the player finds the list's memory."""
    return BASES[levels] + _DIRECT + gpa if levels else gpa


def own(levels: int, user: bool) -> int:
    """An address of its own that it may read."""
    return BASES[levels] + (_addresses()[4] - AT if user else 0)


def device(levels: int, user: bool) -> tuple[int, int]:
    """Where it finds the device's memory, to fill it in and to use it."""
    place = BASES[levels] + _DEVICE_AT if levels else _DEVICE
    return place, place + (PAGE if user and levels else 0)


def image_of(steps: list[Step], memory: list[tuple[int, bytes]]) -> bytes:
    """An ELF file of the player, with its steps and their texts, and of the list's memory. Raises ValueError: it is too long."""
    code = _image()
    texts, places = bytearray(b"\0"), list[int]()
    for step in steps:
        places.append(len(code) + len(steps) * STEP.size + len(texts) if step.text else len(code) + len(steps) * STEP.size)
        texts += step.text.encode() + b"\0" if step.text else b""
    whole = code + b"".join(step.pack(at) for step, at in zip(steps, places, strict=True)) + texts
    if len(whole) > PAGES * PAGE:
        raise ValueError(f"a guest of {len(steps):,} steps would have more than {PAGES * PAGE >> 20} MiB; shrink the list first")
    return _elf([(AT, whole), *memory])


def _elf(pieces: list[tuple[int, bytes]]) -> bytes:
    """A 32-bit ELF file that starts at the first piece."""
    at = _ELF.size + len(pieces) * _SEGMENT.size
    head = _ELF.pack(
        b"\x7fELF", 1, 1, 1, 0, 2, 3, 1, pieces[0][0], _ELF.size, 0, 0, _ELF.size, _SEGMENT.size, len(pieces), 0, 0, 0
    )  # fmt: skip
    segments = b""
    for gpa, data in pieces:
        segments += _SEGMENT.pack(1, at, gpa, gpa, len(data), len(data), 7, 1)
        at += len(data)
    return head + segments + b"".join(data for _, data in pieces)
