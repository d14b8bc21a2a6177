# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t as u64

cdef enum:
    NOWHERE = 1                             # no frame begins there

cdef class GuestMemory:
    cdef u64 frame(self, u64 gpa) except? NOWHERE
    cdef bint stores(self, u64 gpa) except -1
    cdef u64 value(self, u64 hpa, int width) except? NOWHERE
    cpdef bint is_aliased(self, u64 gpa) except -1
