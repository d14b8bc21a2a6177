# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cpdef enum ModeFlag:
    CPL = 3
    CODE_32 = 1 << 4
    STACK_32 = 1 << 5
    ADD_BASES = 1 << 6         # a base of DS, ES or SS counts
    CODE_64 = 1 << 15

cpdef enum SegmentFlag:        # bits of a segment's flags, the second word of its descriptor
    LONG = 1 << 21
    BIG = 1 << 22

cpdef uint32_t mode_flags(uint32_t before, uint32_t code, uint32_t stack, uint64_t bases, uint8_t cpl, bint long_mode) noexcept nogil
