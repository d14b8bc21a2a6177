# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    ROOM = 256

cdef struct Text:
    uint64_t left              # characters that are kept yet
    int length
    uint8_t begun[ROOM]        # the end of an unfinished line
ctypedef Text *TextPtr

cdef bint put(TextPtr text, uint8_t character) noexcept nogil

cdef class Console:
    cdef Text text
    cdef object on_output
    cdef list lines
    cdef bytearray line
    cdef object gather(self)
