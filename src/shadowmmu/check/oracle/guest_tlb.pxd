# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.oracle.guest_memory cimport NOWHERE, GuestMemory
from shadowmmu.check.oracle.shape cimport Shape
from shadowmmu.check.oracle.translations cimport AddressSpace
from shadowmmu.check.oracle.unguarded cimport Unguarded
from shadowmmu.check.oracle.watched_guest cimport WatchedGuest
from shadowmmu.hardware.walk cimport Paging

cdef class GuestTlb:
    cdef readonly WatchedGuest oracle
    cdef readonly GuestMemory memory
    cdef readonly Unguarded unguarded
    cdef readonly str name
    cdef readonly u64 cr0, cr3, cr4, efer
    cdef readonly bint nested
    cdef tuple _pdptes
    cdef public bint flushed, flushed_all
    cdef readonly Paging mode
    cdef readonly Shape shape
    cdef readonly list views
    cdef readonly AddressSpace space
    cdef readonly dict spaces
    @cython.locals(hpa=u64, pdpte=u64)
    cdef object _nested_pdpte(self, u64 gpa)
    @cython.locals(space=AddressSpace, found=bint)
    cpdef bint leads(self, u64 gva, u64 first, u64 pages) except -1
