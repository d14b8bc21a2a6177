# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.oracle.prediction cimport PredictingTlb
from shadowmmu.check.oracle.present cimport Entry
from shadowmmu.check.oracle.translations cimport AddressSpace

cdef class VirtualTlb(PredictingTlb):
    cdef public object stores
    @cython.locals(number=int, seen=Entry, now=u64, new=u64, half=bint)
    cdef object _judge_marks(self, object expected, str outcome, bint must, bint faulted)
    @cython.locals(space=AddressSpace, found=bint)
    cpdef bint lets(self, u64 gva, u64 access, bint ac, u64 hpa) except -1
