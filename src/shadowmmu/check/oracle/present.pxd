# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.oracle.guest_memory cimport NOWHERE, GuestMemory
from shadowmmu.hardware.walk cimport Tables

cdef enum:
    MOST = 128                              # a walk in two dimensions reads fewer than forty
    BYTE = 0xFF

cdef struct Entry:
    u64 hpa, value
    int size
ctypedef Entry *EntryPtr

cdef class Present(Tables):
    cdef GuestMemory memory
    cdef Entry entry[MOST]
    cdef Entry mark[MOST]
    cdef int seen, set
    cdef object begin(self)
    @cython.locals(hpa=u64, value=u64, number=int)
    cpdef u64 load(self, u64 pa, int size) except? 1
    cdef object see(self, u64 hpa, int size, u64 value)
    @cython.locals(hpa=u64)
    cpdef object store(self, u64 pa, int size, u64 value)
    @cython.locals(mark=EntryPtr, number=int, at=int, byte=u64, mask=u64)
    cdef u64 marked(self, u64 hpa, int size, u64 value) noexcept
    @cython.locals(seen=Entry, number=int)
    cpdef list entries(self)
    @cython.locals(seen=Entry, number=int, kept=int)
    cpdef object leave_out(self, u64 hpa, int size)
