# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t as u64

cdef u64 _PRESENT, _RESERVED, _LARGE, _NO_LEAF, _NOTHING, _EXEC, _DIRTY, _NX, _ADDRESS, _KEY_SHIFT

cdef class Step:
    cdef readonly int level, shift
    cdef readonly u64 mask, reserved, reserved_large

cdef class Paging:
    cdef readonly int levels, entry_size
    cdef readonly bint wp, nx, keys
    cdef readonly u64 page_global, fetch_code, pse36, pdpte_reserved
    cdef readonly tuple steps, allowed
    cpdef bint permits(self, u64 rights, u64 access, bint ac) noexcept

# (fault, address, rights down to it, is a leaf)
cpdef (int, u64, u64, bint) use_entry(Paging mode, Step step, u64 entry, u64 rights) noexcept
