# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport int64_t, uint64_t as u64

from shadowmmu.hardware.held cimport Held
from shadowmmu.hardware.host_memory cimport HostMemory
from shadowmmu.hardware.tlb cimport CachedPtr, Tlb
from shadowmmu.hardware.walk cimport DONE, Paging, Walk

cdef enum:
    PRESENT = 1
    WRITE = 2
    DIRTY = 0x40
    CR4_PCIDE = 0x20000

cdef class ModelCpu:
    cdef public object vcpu, features, observer, entered, instruction
    cdef public u64 root, tag
    cdef public tuple pdptes
    cdef public HostMemory memory
    cdef public int npt_levels
    cdef public Tlb tlb
    cdef public Held held
    cdef public Paging mode
    cdef u64 cr0, cr4, efer                 # of which it is the mode
    @cython.locals(root=u64)
    cpdef object enter(self)
    @cython.locals(cr0=u64, cr4=u64, efer=u64)
    cdef object set_mode(self)
    @cython.locals(mode=Paging, page=CachedPtr, way=Walk, code=u64, one=u64)
    cpdef int64_t translate(self, u64 gva, u64 access, bint ac) except? -1
    cpdef object flush(self)
    cpdef object forget(self, u64 gva)
    @cython.locals(hpa=int64_t)
    cpdef object find(self, u64 gva, u64 access, bint ac, list exits, u64 where)
    cpdef object finish(self, u64 hpa, int size, object value, object exits)
