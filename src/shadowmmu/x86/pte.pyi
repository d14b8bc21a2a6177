# SPDX-License-Identifier: GPL-2.0-only
from enum import IntFlag

class Pte(IntFlag):
    PRESENT = 0x1
    WRITABLE = 0x2
    USER = 0x4
    WRITE_THROUGH = 0x8
    CACHE_DISABLE = 0x10
    ACCESSED = 0x20
    DIRTY = 0x40
    PAGE_SIZE = 0x80
    GLOBAL = 0x100
    PSE36_MASK = 0x1E000
    ADDR32 = 0xFFFFF000
    ADDR = 0x000FFFFFFFFFF000
    PKEY_MASK = 0x7800000000000000
    NX = 0x8000000000000000

class PteShift(IntFlag):
    PKEY = 59
    PSE36 = 19

class Level(IntFlag):
    LEVEL_4K = 1
    LEVEL_2M = 2
    LEVEL_1G = 3
