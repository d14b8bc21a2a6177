# SPDX-License-Identifier: GPL-2.0-only
cdef class Tlb:
    cdef public object random
    cdef readonly dict sources
    cdef dict _pages, _tables, _global
    cdef tuple _shifts
