# SPDX-License-Identifier: GPL-2.0-only
"""Descriptors of segments in the guest's own tables."""

from shadowmmu.machine.memory.linear_memory import SYSTEM, WRITE, GuestMemory
from shadowmmu.machine.seam import Segment, State, Table
from shadowmmu.x86.vmcb import Attr

SYSTEM_TYPE, BUSY = 0x1F, 0x2
"""Of a system segment: the part of its attributes that says what it is; the bit of a TSS that is in use."""
LDT, TSS_16, TSS_32 = 0x2, 0x1, 0x9


class NoDescriptor(Exception):
    """The selector is beyond its table, or there is none."""


def read_descriptor(memory: GuestMemory, state: State, selector: int, *, wide: bool = False) -> tuple[Segment, int]:
    """The segment, and the linear address of its descriptor. `wide`: it is one of 16 bytes, of a system segment in long mode."""
    ldtr = state.system.ldtr
    table = state.system.gdtr
    if selector & 4:
        table = Table(ldtr.base, ldtr.limit if ldtr.attr & Attr.PRESENT else -1)
    size = 16 if wide else 8
    if (selector & ~7) + size - 1 > table.limit:
        raise NoDescriptor
    address = table.base + (selector & 0xFFF8)
    raw = memory.read(address, size, SYSTEM)
    limit, attr = raw & 0xFFFF | raw >> 32 & 0xF0000, raw >> 40 & 0xFF | raw >> 44 & 0xF00
    if attr & Attr.GRANULARITY:
        limit = limit << 12 | 0xFFF
    base = raw >> 16 & 0xFFFFFF | raw >> 32 & 0xFF000000 | (raw >> 64 & 0xFFFFFFFF) << 32
    return Segment(selector, attr, limit, base), address


def mark(memory: GuestMemory, segment: Segment, address: int, bit: int) -> Segment:
    """Set a bit of the descriptor's type - accessed, or busy - in its table, too."""
    if not segment.attr & bit:
        memory.store(memory.locate(address + 5, 1, SYSTEM | WRITE), segment.attr & 0xFF | bit)
    return segment._replace(attr=segment.attr | bit)
