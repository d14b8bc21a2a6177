# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.fuzz.stage cimport Stage
from shadowmmu.check.oracle.virtual_tlb cimport VirtualTlb

cdef class L2Operations(Stage):
    @cython.locals(tlb=VirtualTlb)
    cpdef object _reload_pdptes(self, int index)
    @cython.locals(tlb=VirtualTlb)
    cpdef object _settle_pdptes(self)
    @cython.locals(tlb=VirtualTlb)
    cpdef u64 _as_seen(self, int index, u64 access) except? 1
