# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t as u64

from shadowmmu.hardware.host_memory cimport HostMemory
from shadowmmu.hardware.walk cimport Paging

cdef enum:
    MOST = 64        # watched addresses: the bits of a word
    DEEPEST = 6

cdef enum:
    PRESENT = 1
    WRITE = 2
    DIRTY = 0x40
    LARGE = 0x80
    ALL = 0xE
    ADDRESS = 0x000FFFFFFFFFF000

cdef struct Used:
    u64 pa
    u64 value
    u64 mask         # what of it has to stay as long as it is held

cdef struct Way:
    u64 gva
    int depth        # entries used; 0: nothing is held
    int shift        # of the page
    bint leaf        # the way ends in a page
    u64 page
    u64 rights
    Used used[DEEPEST]
ctypedef Way *WayPtr

cdef class Ways:
    cdef Way ways[MOST]
    cdef u64 root

cdef class Held:
    cdef HostMemory memory
    cdef dict tags
    cdef u64 watched[MOST]
    cdef int count
    cdef u64 read(self, u64 hpa) except? 0
    cdef int go(self, Way *way, u64 gva, u64 root, Paging mode) except -1
