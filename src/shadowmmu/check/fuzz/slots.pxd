# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

cdef class Slots:
    cdef public object vm, read, zeroes
    cdef public tuple spaces
    cdef public dict slots
    cdef public set protected, absent
    cdef dict _cache
    @cython.locals(gfn=u64, frame=u64)
    cpdef object host(self, u64 gpa)
    @cython.locals(slot=tuple)
    cpdef object slot_of(self, u64 gfn)
    @cython.locals(slot=tuple)
    cpdef object host_page(self, u64 gfn)
    cpdef bint may_store(self, u64 gpa) except -1
    cpdef bint writable(self, u64 gpa) except -1
    cpdef object peek(self, u64 gpa, int size)
