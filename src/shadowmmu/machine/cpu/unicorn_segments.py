# SPDX-License-Identifier: GPL-2.0-only
"""Segments as the processor context has them, and what CS and SS make of its mode flags."""

import struct

from shadowmmu.machine.cpu.mode_flags import mode_flags
from shadowmmu.machine.cpu.unicorn_layout import SEGMENT_SIZE, Layout
from shadowmmu.machine.seam import Seg, Segment, System, Table

_ONE = struct.Struct("<I4xQII")  # selector, base, limit, flags
_ARRAY = struct.Struct("<" + "I4xQII" * 10)


def segments_of(raw: bytes) -> tuple[tuple[Segment, ...], Table, Table]:
    """ES, CS, SS, DS, FS, GS, LDTR and TR; GDTR; IDTR."""
    fields = _ARRAY.unpack(raw)
    return tuple([_segment(fields, i) for i in range(8)]), Table(fields[33], fields[34]), Table(fields[37], fields[38])


def _segment(fields: tuple[int, ...], index: int) -> Segment:
    """Its flags are the descriptor's second word."""
    selector, base, limit, flags = fields[4 * index : 4 * index + 4]
    return Segment(selector & 0xFFFF, flags >> 8 & 0xFF | flags >> 12 & 0xF00, limit, base)


def _flags_of(segment: Segment) -> int:
    return (segment.attr & 0xFF) << 8 | (segment.attr & 0xF00) << 12


def put_mode(context: memoryview, where: Layout, system: System, long_mode: bool) -> None:
    """Put CS and SS into the context, and what they make of the mode flags."""
    segments = system.segments
    for number in (Seg.CS, Seg.SS):
        segment = segments[number]
        _ONE.pack_into(context, where.segments + SEGMENT_SIZE * number, segment.selector, segment.base, segment.limit, _flags_of(segment))
    code, stack = (_flags_of(segments[number]) for number in (Seg.CS, Seg.SS))
    bases = segments[Seg.DS].base | segments[Seg.ES].base | segments[Seg.SS].base
    before: int = struct.unpack_from("<I", context, where.hflags)[0]
    struct.pack_into("<I", context, where.hflags, mode_flags(before, code, stack, bases, system.cpl, long_mode))
