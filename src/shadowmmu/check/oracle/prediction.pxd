# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.oracle.guest_tlb cimport GuestTlb
from shadowmmu.check.oracle.present cimport Present
from shadowmmu.hardware.walk cimport DONE, Walk

cdef class PredictingTlb(GuestTlb):
    cdef public object l2, prediction
    cdef readonly Present present
    cdef Walk way
    @cython.locals(way=Walk, code=u64)
    cdef object _walk_present(self, u64 gva, u64 access, bint ac)
