# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.oracle.guest_memory cimport GuestMemory
from shadowmmu.check.oracle.translations cimport AddressSpace, Shape
from shadowmmu.check.oracle.unguarded cimport Unguarded
from shadowmmu.hardware.walk cimport Paging

cdef class Oracle:
    cdef readonly GuestMemory memory
    cdef readonly object features
    cdef readonly bint strict
    cdef readonly tuple watched, vcpus
    cdef readonly dict numbers
    cdef public object edits, aliased
    cdef public set dirty, written
    cdef readonly Unguarded unguarded
    cdef dict _shapes

cdef class VirtualTlb:
    cdef readonly Oracle oracle
    cdef readonly GuestMemory memory
    cdef readonly Unguarded unguarded
    cdef readonly str name
    cdef readonly u64 cr0, cr3, cr4, efer
    cdef readonly bint nested
    cdef public object l2, prediction, stores
    cdef tuple _pdptes
    cdef public bint flushed, flushed_all
    cdef readonly Paging mode
    cdef readonly Shape shape
    cdef readonly list views
    cdef readonly AddressSpace space
    cdef readonly dict spaces
    cpdef bint lets(self, u64 gva, u64 access, bint ac, u64 hpa) except -1
