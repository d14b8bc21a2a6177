# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.oracle.guest_memory cimport NOWHERE, GuestMemory
from shadowmmu.check.oracle.present cimport Entry, Present
from shadowmmu.check.oracle.translations cimport AddressSpace, Shape
from shadowmmu.check.oracle.unguarded cimport Unguarded
from shadowmmu.hardware.walk cimport DONE, Paging, Walk

cdef class Oracle:
    cdef readonly GuestMemory memory
    cdef readonly object features
    cdef readonly bint strict
    cdef readonly tuple watched, vcpus
    cdef readonly dict numbers
    cdef public object edits, aliased
    cdef public set dirty, written
    cdef readonly Unguarded unguarded
    cdef int maxphyaddr
    cdef dict _shapes, _modes
    @cython.locals(tlb=VirtualTlb, space=AddressSpace)
    cdef object _changed(self, u64 hpa, int size)

cdef class VirtualTlb:
    cdef readonly Oracle oracle
    cdef readonly GuestMemory memory
    cdef readonly Unguarded unguarded
    cdef readonly str name
    cdef readonly u64 cr0, cr3, cr4, efer
    cdef readonly bint nested
    cdef public object l2, prediction, stores
    cdef tuple _pdptes
    cdef readonly Present present
    cdef Walk way
    cdef public bint flushed, flushed_all
    cdef readonly Paging mode
    cdef readonly Shape shape
    cdef readonly list views
    cdef readonly AddressSpace space
    cdef readonly dict spaces
    @cython.locals(hpa=u64, pdpte=u64)
    cdef object _nested_pdpte(self, u64 gpa)
    @cython.locals(way=Walk, code=u64)
    cdef object _walk_present(self, u64 gva, u64 access, bint ac)
    @cython.locals(number=int, seen=Entry, now=u64, new=u64, half=bint)
    cdef object _judge_marks(self, object expected, str outcome, bint must, bint faulted)
    @cython.locals(space=AddressSpace, found=bint)
    cpdef bint leads(self, u64 gva, u64 first, u64 pages) except -1
    @cython.locals(space=AddressSpace, found=bint)
    cpdef bint lets(self, u64 gva, u64 access, bint ac, u64 hpa) except -1
