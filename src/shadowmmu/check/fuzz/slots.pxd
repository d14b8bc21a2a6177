# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint32_t, uint64_t as u64

from shadowmmu.check.oracle.guest_memory cimport NOWHERE, GuestMemory
from shadowmmu.hardware.host_memory cimport HostMemory

ctypedef u64 *p_u64
ctypedef uint32_t *p_u32

cdef enum:
    PAGES = 2048                            # below which all slots lie
    KNOWN = 1
    WRITABLE = 2
    NO_MEMORY = 4

cdef class Slots(GuestMemory):
    cdef public object vm, zeroes
    cdef readonly HostMemory memory
    cdef public tuple spaces
    cdef public dict slots
    cdef public set protected, absent
    cdef u64 frames[PAGES]
    @cython.locals(known=u64)
    cdef u64 look(self, u64 gfn) except 0
    @cython.locals(found=u64)
    cpdef object host(self, u64 gpa)
    @cython.locals(known=u64)
    cdef u64 frame(self, u64 gpa) except? NOWHERE
    @cython.locals(slot=tuple)
    cpdef object slot_of(self, u64 gfn)
    @cython.locals(slot=tuple)
    cpdef object host_page(self, u64 gfn)
    cpdef bint may_store(self, u64 gpa) except -1
    cpdef bint writable(self, u64 gpa) except -1
    cdef bint stores(self, u64 gpa) except -1
    cpdef object read(self, u64 hpa, int size)
    cdef u64 value(self, u64 hpa, int width) except? NOWHERE
    @cython.locals(gfn=u64, known=u64)
    cpdef object peek(self, u64 gpa, int size)
    @cython.locals(some=u64, gfn=u64, number=u64)
    cpdef list with_frames(self, set frames, u64 first, u64 pages)
