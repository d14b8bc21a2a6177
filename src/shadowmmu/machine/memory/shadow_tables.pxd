# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport int64_t, uint64_t

from shadowmmu.engine.face.vcpu cimport Vcpu
from shadowmmu.hardware.walk cimport Paging

cdef enum:
    MOST_LEVELS = 5
    FOUND = -1                 # no error code

cdef class ShadowTables:
    cdef Vcpu vcpu
    cdef object features
    cdef uint64_t cr0, cr4, efer
    cdef Paging mode
    cdef Paging paging(self)
    cdef int64_t find(self, uint64_t gva, uint64_t access, uint64_t *place)
