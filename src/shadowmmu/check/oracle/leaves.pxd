# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t as u64
from libc.stdlib cimport free, realloc

from shadowmmu.check.oracle.guest_memory cimport GuestMemory
from shadowmmu.hardware.walk cimport Paging

ctypedef int *p_int

cdef enum:
    WRITE = 2
    DIRTY = 0x40
    GLOBAL = 0x100
    END = -1                                # of a chain of rows

cdef struct Leaf:                           # a translation of a watched page
    u64 page, rights
    int shift, watched
    int next                                # of the same watched page
ctypedef Leaf *LeafPtr

cdef class Leaves:
    cdef GuestMemory memory
    cdef bint strict
    cdef Paging mode
    cdef tuple watched
    cdef Leaf *leaves
    cdef int nleaves, leaf_room
    cdef int *first_leaf                    # of each watched page
    cdef object chain_anew(self)
    cdef object add(self, int watched, u64 page, int shift, u64 rights)
    cpdef bint leads(self, int watched, u64 gva, u64 first, u64 pages, bint only_global) except -1
    cpdef bint lets(self, int watched, u64 gva, u64 access, bint ac, u64 hpa, bint only_global) except -1


cdef inline void *with_room(void *rows, int count, int *room, size_t size) except NULL:
    """The rows, with room for one more."""
    if count < room[0]:
        return rows
    cdef void *more = realloc(rows, (2 * room[0] + 64) * size)
    if more == NULL:
        raise MemoryError("no memory for what the guest's tables allow")
    room[0] = 2 * room[0] + 64
    return more
