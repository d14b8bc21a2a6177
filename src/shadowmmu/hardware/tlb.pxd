# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.hardware.host_memory cimport HostMemory
from shadowmmu.hardware.walk cimport _ALL, _GLOBAL, _WRITE, DEEPEST, Paging, Step, UsedPtr, Walk

cdef enum:
    SOURCES = DEEPEST + 1                   # with a PDPTE
    KEEPS = 0x000FFFFFFFFFF081              # of an entry: present, where it leads, that it is a leaf

cdef struct Source:                         # an entry that something was made of, and what of it has to stay
    u64 pa, mask, value
ctypedef Source *SourcePtr

cdef struct Cached:                         # a page, or a table on the way to pages
    u64 tag, key                            # the address without the bits that lie in it
    int shift
    bint everywhere                         # a page with G: of every tag (SDM 4.10.2.4)
    u64 address, rights                     # of the page, or of the table and down to it
    int sources
    Source made_of[SOURCES]
ctypedef Cached *CachedPtr

cdef struct Cache:
    Cached *rows                            # in the order in which they were cached first
    int count, room
ctypedef Cache *CachePtr

cdef class Tlb:
    cdef public object random
    cdef Cache pages, tables
    @cython.locals(found=CachedPtr)
    cpdef object page(self, u64 tag, u64 gva)
    @cython.locals(found=CachedPtr, row=CachedPtr, number=int)
    cdef Cached *find(self, u64 tag, u64 gva) noexcept
    @cython.locals(found=CachedPtr, row=CachedPtr, number=int, at=int, top=Step, step=Step)
    cpdef bint resume(self, u64 tag, u64 gva, Paging mode, Walk way) except -1
    @cython.locals(page=CachedPtr, table=CachedPtr, used=UsedPtr, step=Step, number=int)
    cpdef object fill(self, u64 tag, u64 gva, Paging mode, Walk way)
    @cython.locals(same=bint, known=CachedPtr, new=CachedPtr, more=CachedPtr, number=int)
    cdef Cached *row(self, Cache *cache, u64 tag, u64 gva, int shift, bint everywhere) except NULL
    @cython.locals(number=int, at=u64)
    cdef object note(self, Cached *row, Walk way, int depth, Paging mode, u64 gva)
    cpdef object stale(self, u64 tag, HostMemory memory)
    @cython.locals(row=CachedPtr, source=SourcePtr, number=int, k=int, now=u64)
    cdef object first_stale(self, Cache *cache, u64 tag, HostMemory memory, str kind, bint everywhere)
    @cython.locals(top=Step)
    cpdef object invlpg(self, u64 tag, u64 gva, Paging mode)
    @cython.locals(row=CachedPtr, number=int, kept=int)
    cdef object drop(self, Cache *cache, u64 tag, u64 gva, int highest)
    @cython.locals(number=int, kept=int)
    cdef object forget(self, Cache *cache, u64 tag)


cdef inline bint holds(Cached *row, u64 tag, u64 gva) noexcept:
    """It serves the tag, and the address lies in it."""
    return (row.everywhere or row.tag == tag) and row.key == gva >> row.shift


cdef inline void add_source(Cached *row, u64 pa, u64 entry, u64 mask) noexcept:
    row.made_of[row.sources].pa, row.made_of[row.sources].mask, row.made_of[row.sources].value = pa, mask, entry
    row.sources += 1
