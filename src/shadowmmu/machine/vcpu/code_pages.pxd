# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    PAGES = 1 << 16            # a power of two

cdef struct Marks:
    uint8_t page[PAGES]        # by the low bits of the frame number
    bint all
ctypedef Marks *MarksPtr

cdef void mark(MarksPtr marks, uint64_t hpa) noexcept nogil
cdef bint is_marked(MarksPtr marks, uint64_t hpa) noexcept nogil

cdef class CodePages:
    cdef Marks marks
