# SPDX-License-Identifier: GPL-2.0-only
from enum import IntFlag

class ModeFlag(IntFlag):
    CPL = 3
    CODE_32 = 1
    STACK_32 = 1
    ADD_BASES = 1
    CODE_64 = 1

class SegmentFlag(IntFlag):
    LONG = 1
    BIG = 1

def mode_flags(before: int, code: int, stack: int, bases: int, cpl: int, long_mode: bool) -> int: ...
