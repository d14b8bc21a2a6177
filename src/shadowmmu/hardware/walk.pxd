# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

cdef u64 _PRESENT, _RESERVED, _LARGE, _NO_LEAF, _NOTHING, _EXEC, _DIRTY, _NX, _ADDRESS, _KEY_SHIFT
cdef u64 _WRITE, _ALL, _ACCESSED, _GLOBAL, _PDPT

cdef enum:
    DONE = 0x20000000                       # of a walk: no fault; no bit of an error code
    DEEPEST = 5

cdef class Step:
    cdef readonly int level, shift
    cdef readonly u64 mask, reserved, reserved_large

cdef class Paging:
    cdef readonly int levels, entry_size
    cdef readonly bint wp, nx, keys
    cdef readonly u64 page_global, fetch_code, pse36, pdpte_reserved
    cdef readonly tuple steps, allowed
    cpdef bint permits(self, u64 rights, u64 access, bint ac) noexcept
    cpdef u64 code(self, u64 access) noexcept

# (fault, address, rights down to it, is a leaf)
cpdef (int, u64, u64, bint) use_entry(Paging mode, Step step, u64 entry, u64 rights) noexcept

cdef class Tables:
    cpdef u64 load(self, u64 pa, int size) except? 1
    cpdef object store(self, u64 pa, int size, u64 value)

cdef class Functions(Tables):
    cdef object read, write

cdef struct Used:                           # an entry, the step it was used at, and what it led to
    int step
    u64 pa, entry, address, rights
ctypedef Used *UsedPtr

cdef class Walk:
    cdef Tables tables
    cdef bint marks, resumed
    cdef object pkru
    cdef public tuple pdptes
    cdef Used used[DEEPEST]
    cdef readonly int depth
    cdef int first                          # the step where it begins, if it resumes; so the next two
    cdef u64 table, given
    cdef u64 root                           # of the last
    cdef readonly u64 page, rights          # of the leaf
    cdef readonly int shift
    cdef object resume(self, int at, u64 table, u64 rights)
    @cython.locals(fault=u64, key=u64)
    cpdef u64 go(self, Paging mode, u64 root, u64 gva, u64 access, bint ac) except? 2
    @cython.locals(table=u64, rights=u64, pdpte=u64, at=int, step=Step, used=UsedPtr, fault=int, leaf=bint)
    cdef int descend(self, Paging mode, u64 root, u64 gva) except -1
    cdef u64 pdpte(self, u64 root, u64 gva) except? 2
    @cython.locals(i=int, used=UsedPtr, marked=u64)
    cdef bint mark(self, int size, u64 access) except -1
    cpdef object translation(self)
    @cython.locals(i=int, used=Used)
    cpdef list trail(self)
