# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.oracle.guest_memory cimport NOWHERE, GuestMemory
from shadowmmu.check.oracle.shape cimport Shape
from shadowmmu.check.oracle.translations cimport AddressSpace
from shadowmmu.check.oracle.unguarded cimport Unguarded
from shadowmmu.check.oracle.watched_guest cimport WatchedGuest
from shadowmmu.hardware.walk cimport Paging

cdef u64 NPT_PDPTE_HIGH, PDPTE

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
    @cython.locals(at=u64)
    cpdef tuple four_pdptes(self)
    @cython.locals(pdpte=u64)
    cdef u64 _nested_pdpte(self, u64 hpa) except? 2
    @cython.locals(space=AddressSpace, found=bint)
    cpdef bint leads(self, u64 gva, u64 first, u64 pages) except -1
