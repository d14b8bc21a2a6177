# SPDX-License-Identifier: GPL-2.0-only
"""Reads pages of the kernel's trace ring buffer, with the event layouts that the kernel itself gives.

The page and record headers are those of kernel/trace/ring_buffer.c (events/header_page, events/header_event); an event's
own fields are described by events/GROUP/NAME/format, which `init` saves.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kit.errors import KitError
from kit.kernels import RoleBits

PAGE = 4096
PAGE_HEADER = struct.Struct("<QQ")
"""Time stamp of the page, and bytes of records in it (its upper bits are flags)."""
COMMITTED = 0xF_FFFF
PADDING, TIME_EXTEND, TIME_STAMP = 29, 30, 31
"""Values of a record's 5-bit type_len above the lengths: the rest of the page is empty; two kinds of long time step."""
DELTA_BITS = 27
PRINT_HEADER = 16
"""Bytes of a marker (event "print") before its text."""
_FIELD = re.compile(r"field:([^;]+);\s*offset:(\d+);\s*size:(\d+);\s*signed:(\d)")
_OF_THE_TRACER = ("__probe_ip", "__probe_func", "__probe_ret_ip", "ip")
"""Fields that say where a probe is, not what happened."""


class Field(NamedTuple):
    name: str
    offset: int
    size: int
    signed: bool
    array: bool


class Layout(NamedTuple):
    """One event's name, group, and fields."""

    name: str
    group: str
    fields: list[Field]


def read_layouts(folder: Path) -> dict[int, Layout]:
    """By event number, from files GROUP.NAME.txt."""
    layouts: dict[int, Layout] = {}
    for path in sorted(folder.glob("*.txt")):
        text = path.read_text()
        number, name = re.search(r"^ID: (\d+)", text, re.MULTILINE), re.search(r"^name: (\S+)", text, re.MULTILINE)
        if number and name:
            layouts[int(number[1])] = Layout(name[1], path.name.split(".")[0], list(_fields(text)))
    if not layouts:
        raise KitError(f"no event layouts in {folder}: run the set again")
    return layouts


def _fields(text: str) -> Iterator[Field]:
    for declared, offset, size, signed in _FIELD.findall(text):
        name = declared.split()[-1]
        plain = name.split("[")[0]
        if not plain.startswith("common_") and plain not in _OF_THE_TRACER:
            yield Field(plain, int(offset), int(size), signed == "1", "[" in name)


def read_events(raw: bytes, layouts: dict[int, Layout], role_bits: RoleBits) -> list[dict[str, Any]]:
    """All events of a buffer in their order: `ev` the name, `sys` the group, `ts` nanoseconds, and the event's fields."""
    return [_event(time, record, layouts, role_bits) for time, record in _records(raw)]


def _event(time: int, record: bytes, layouts: dict[int, Layout], role_bits: RoleBits) -> dict[str, Any]:
    (number,) = struct.unpack_from("<H", record)
    layout = layouts[number]
    event: dict[str, Any] = {"ev": layout.name, "sys": layout.group}
    for field in layout.fields:
        data = record[field.offset : field.offset + field.size]
        if layout.name == "print" and field.name == "buf":
            event["text"] = record[PRINT_HEADER:].split(b"\0")[0].decode("latin-1").rstrip("\n")
        elif field.array:
            event[field.name] = data.hex()
        else:
            event[field.name] = int.from_bytes(data, "little", signed=field.signed)
    if "role" in event:
        event["role"] = role(event["role"], role_bits)
    event["ts"] = time
    return event


def _records(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """(nanoseconds, bytes) of each record."""
    for page in range(0, len(raw), PAGE):
        time, committed = PAGE_HEADER.unpack_from(raw, page)
        at = page + PAGE_HEADER.size
        end = at + (committed & COMMITTED)
        while at < end:
            (header,) = struct.unpack_from("<I", raw, at)
            kind, delta = header & 31, header >> 5
            (second,) = struct.unpack_from("<I", raw, at + 4)
            if kind == PADDING:
                if not delta:
                    break
                at += 4 + second
            elif kind in (TIME_EXTEND, TIME_STAMP):
                step = delta + (second << DELTA_BITS)
                time = step if kind == TIME_STAMP else time + step
                at += 8
            else:
                start, length = (at + 8, second - 4) if kind == 0 else (at + 4, kind * 4)
                time += delta
                yield time, raw[start : start + (length + 3 & ~3)]
                at = start + length + 3 & ~3


def role(word: int, bits: RoleBits) -> dict[str, int]:
    return {"word": word} | {name: word >> low & (1 << count) - 1 for name, low, count in bits}
