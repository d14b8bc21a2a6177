# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.engine.arena.state cimport KvmVcpu
from shadowmmu.engine.face.vcpu cimport Vcpu
from shadowmmu.hardware.walk cimport Paging, Tables, Walk

cdef enum:
    MOST_ENTRIES = 6           # a PDPTE, and those of a walk

cdef bint find_l1_physical(KvmVcpu *vcpu, uint64_t gpa, uint64_t *at) noexcept nogil
cpdef object read_physical(Vcpu vcpu, uint64_t gpa, uint64_t size)

cdef class OwnTables(Tables):
    cdef Vcpu vcpu
    cpdef uint64_t load(self, uint64_t pa, int size) except? 1

cdef class GuestTables:
    cdef Vcpu vcpu
    cdef Walk way
    cdef uint64_t cr0, cr4, efer
    cdef Paging mode
    # Of the last walk.
    cdef int number
    cdef uint64_t entries[MOST_ENTRIES]
    cdef bint leads
    cdef uint64_t gpa
    cdef Paging paging(self)
    cdef object look(self, uint64_t gva)
    cdef bint uses(self, uint64_t gpa)
