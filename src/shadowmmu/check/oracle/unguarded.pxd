# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

cdef class Unguarded:
    cdef public set mmio, gfns
    cdef readonly dict values, outside
    cdef dict narrow, wide
    cdef u64 some
    cdef object follow(self, u64 hpa)
    @cython.locals(bit=u64)
    cdef object note(self, u64 hpa)
    cdef bint is_other(self, u64 hpa, int width) except -1
