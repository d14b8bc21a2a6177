# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.fuzz.l2_author cimport L2Author

cdef class MemoryAuthor(L2Author):
    cdef readonly list faults
    @cython.locals(size=int, how=int, gva=u64)
    cpdef object access(self, int vcpu)
