# SPDX-License-Identifier: GPL-2.0-only
from enum import IntFlag

class ModeFlag(IntFlag):
    CPL = 0x3
    CODE_32 = 0x10
    STACK_32 = 0x20
    ADD_BASES = 0x40
    CODE_64 = 0x8000

class SegmentFlag(IntFlag):
    LONG = 0x200000
    BIG = 0x400000

def mode_flags(before: int, code: int, stack: int, bases: int, cpl: int, long_mode: bool) -> int: ...
