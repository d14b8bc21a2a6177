# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.engine.face.vcpu cimport Vcpu
from shadowmmu.hardware.walk cimport Paging, Tables, Walk
from shadowmmu.machine.memory.guest_tables cimport GuestTables

cdef class HostTables(Tables):
    cdef Vcpu vcpu
    cpdef uint64_t load(self, uint64_t pa, int size) except? 1
    cpdef object store(self, uint64_t pa, int size, uint64_t value)

cdef class ThroughNested(Tables):
    cdef Vcpu vcpu
    cdef HostTables host
    cdef Walk way
    cdef Paging mode
    cdef uint64_t place(self, uint64_t gpa, uint64_t access, bint table)
    cpdef uint64_t load(self, uint64_t pa, int size) except? 1
    cpdef object store(self, uint64_t pa, int size, uint64_t value)

cdef class NestedTables:
    cdef Vcpu vcpu
    cdef GuestTables guest
    cdef ThroughNested nested
    cdef Walk way
    cdef uint64_t code         # of the last walk, if it has ended in a #PF
    cdef bint find(self, uint64_t gva, uint64_t access, uint64_t *place)
