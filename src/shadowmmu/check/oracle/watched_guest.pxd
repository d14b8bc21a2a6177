# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.oracle.guest_memory cimport GuestMemory
from shadowmmu.check.oracle.shape cimport Shape
from shadowmmu.check.oracle.translations cimport AddressSpace
from shadowmmu.check.oracle.unguarded cimport Unguarded
from shadowmmu.hardware.walk cimport Paging

cdef class WatchedGuest:
    cdef readonly GuestMemory memory
    cdef readonly object features
    cdef readonly bint strict
    cdef readonly tuple watched
    cdef readonly dict numbers
    cdef readonly list spaces
    cdef public long long edits
    cdef public object aliased
    cdef public set dirty, written
    cdef readonly Unguarded unguarded
    cdef int maxphyaddr
    cdef dict _shapes, _modes
    cpdef Shape shape(self, Paging mode)
    @cython.locals(spaces=dict, space=AddressSpace)
    cdef object _changed(self, u64 hpa, int size)
