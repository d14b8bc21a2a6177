# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.fuzz.slots cimport Slots
from shadowmmu.hardware.walk cimport Paging, Step, use_entry

cdef enum:
    ALL = 0xE
    ADDRESS = 0x000FFFFFFFFFF000

cdef class Glance:
    cdef Slots slots
    cdef u64 entry(self, u64 gpa, int width) except? 1
    cdef u64 top(self, Paging mode, u64 cr3, tuple pdptes, u64 gva) except? 1
    cpdef u64 small_page(self, Paging mode, u64 cr3, tuple pdptes, u64 gva, u64 access) except? 1
    cpdef object through(self, Paging mode, u64 cr3, tuple pdptes, object among, u64 access, u64 page)
    cpdef list trail(self, Paging mode, u64 cr3, tuple pdptes, u64 gva)
