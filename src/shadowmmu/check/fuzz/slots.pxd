# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint32_t, uint64_t as u64

from shadowmmu.check.oracle.guest_memory cimport NOWHERE, GuestMemory
from shadowmmu.hardware.host_memory cimport HostMemory

ctypedef u64 *p_u64
ctypedef uint32_t *p_u32

cdef enum:
    HOST_PAGES_END = 2048                   # of user memory
    MOST_SLOTS = 8

cdef struct Place:                          # a slot
    u64 first, pages, host
    bint readonly
ctypedef Place *PlacePtr

cdef class Slots(GuestMemory):
    cdef public object vm, zeroes
    cdef readonly HostMemory memory
    cdef public tuple spaces
    cdef public dict behind, slots
    cdef public set protected, absent
    cdef bint aliases
    cdef u64 frames[HOST_PAGES_END]
    cdef Place places[MOST_SLOTS]
    cdef int count
    @cython.locals(place=PlacePtr)
    cpdef object set(self, object slot, object first, object pages, object flags)
    @cython.locals(number=int, place=PlacePtr)
    cdef Place *place_of(self, u64 gfn) noexcept
    @cython.locals(known=u64)
    cdef u64 frame_of(self, u64 host, u64 gpa) except? NOWHERE
    @cython.locals(found=u64)
    cpdef object host(self, u64 gpa)
    @cython.locals(place=PlacePtr)
    cdef u64 frame(self, u64 gpa) except? NOWHERE
    @cython.locals(slot=tuple)
    cpdef object slot_of(self, u64 gfn)
    @cython.locals(slot=tuple)
    cpdef object host_page(self, u64 gfn)
    @cython.locals(place=PlacePtr)
    cpdef bint may_store(self, u64 gpa) except -1
    @cython.locals(place=PlacePtr)
    cpdef bint is_aliased(self, u64 gpa) except -1
    @cython.locals(first=int, host=int, known=u64)
    cpdef bint backs_aliased(self, u64 frame) except -1
    cpdef bint writable(self, u64 gpa) except -1
    cdef bint stores(self, u64 gpa) except -1
    cpdef object read(self, u64 hpa, int size)
    cdef u64 value(self, u64 hpa, int width) except? NOWHERE
    @cython.locals(place=PlacePtr, host=u64)
    cpdef object peek(self, u64 gpa, int size)
    @cython.locals(some=u64, gfn=u64, number=u64)
    cpdef list with_frames(self, set frames, u64 first, u64 pages)
