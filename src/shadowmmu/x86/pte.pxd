# SPDX-License-Identifier: GPL-2.0-only
# Bits of paging-structure entries. Sources: SDM vol. 3 sections 4.3-4.5; APM vol. 2 chapter 5.

cpdef enum Pte:
    PRESENT = 0x1
    WRITABLE = 0x2
    USER = 0x4
    WRITE_THROUGH = 0x8
    CACHE_DISABLE = 0x10
    ACCESSED = 0x20
    DIRTY = 0x40
    PAGE_SIZE = 0x80                    # a leaf above level 1
    GLOBAL = 0x100
    PSE36_MASK = 0x1E000                # 4 MB page: bits 13-16 are physical bits 32-35
    ADDR32 = 0xFFFFF000                 # address field of a 4-byte entry
    ADDR = 0x000FFFFFFFFFF000           # address field of an 8-byte entry
    PKEY_MASK = 0x7800000000000000      # bits 59-62
    NX = 0x8000000000000000


cpdef enum PteShift:
    PKEY = 59
    PSE36 = 19                          # from bit 13 to bit 32


cpdef enum Level:
    LEVEL_4K = 1
    LEVEL_2M = 2
    LEVEL_1G = 3
