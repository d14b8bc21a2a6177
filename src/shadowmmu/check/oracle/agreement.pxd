# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.oracle.virtual_tlb cimport VirtualTlb
from shadowmmu.hardware.cpu cimport ModelCpu
from shadowmmu.hardware.held cimport Held
from shadowmmu.hardware.walk cimport Paging

cdef class Agreement:
    cdef readonly ModelCpu cpu
    cdef readonly VirtualTlb tlb
    cdef readonly Held held
    cdef readonly object unsync_below
    cdef readonly dict reach
    @cython.locals(mode=Paging, access=u64)
    cpdef object check_allowed(self, u64 gva, u64 hpa, u64 rights, tuple kinds)
