# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t as u64

cdef class Unguarded:
    cdef public set mmio, gfns
    cdef readonly dict values, outside
    cdef dict narrow, wide
    cdef bint is_other(self, u64 hpa, int width) except -1
