# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.fuzz.draw cimport Draw
from shadowmmu.check.fuzz.glance cimport Glance
from shadowmmu.check.fuzz.host_operations cimport HostOperations
from shadowmmu.check.oracle.virtual_tlb cimport VirtualTlb
from shadowmmu.hardware.walk cimport Paging, Step

cdef class TableWriter:
    cdef readonly Draw random
    cdef readonly HostOperations guest
    cdef readonly Glance glance
    cdef readonly list pending, recent
    cdef readonly double large
    @cython.locals(mode=Paging, size=int, chance=double)
    cpdef object _write_entry(self, int vcpu, u64 gpa, object entry, bint make_way=*)
    cpdef object _gva(self, int levels)
    @cython.locals(tlb=VirtualTlb)
    cpdef int _levels(self, int vcpu) except -1
    @cython.locals(tlb=VirtualTlb)
    cpdef list _look(self, int vcpu, u64 gva)
    @cython.locals(levels=int)
    cpdef tuple _in_use(self, int vcpu)
    @cython.locals(tlb=VirtualTlb, step=Step)
    cpdef int _level(self, int vcpu, object used) except -1
    @cython.locals(tlb=VirtualTlb, page=u64)
    cpdef int _maps_table(self, int vcpu, u64 gva, u64 access=*) except -1
    @cython.locals(tlb=VirtualTlb)
    cpdef object _through(self, int vcpu, object among, u64 table)
    @cython.locals(tlb=VirtualTlb)
    cpdef list _held(self, int vcpu, u64 first, u64 pages)
    @cython.locals(modulus=int)
    cpdef int _home(self, int levels, int level) except -1
    @cython.locals(random=Draw, large=bint, frame=u64, entry=u64, bit=u64, often=double)
    cpdef u64 _entry(self, int levels, int level, double hostile=*) except? 1
    @cython.locals(step=Step, gva=u64)
    cpdef tuple _table_slot(self, int levels, int table)
    cpdef object _add(self, object kind, object vcpu, object a=*, object b=*, object c=*, object d=*)
    cpdef int _how(self) except -1
    cpdef int _root(self) except -1
    cpdef object _path(self, int vcpu, u64 cr3, u64 gva, int levels)
    @cython.locals(step=Step, entry=u64, size=int)
    cpdef object _lay(self, int vcpu, u64 table, u64 gva, int levels, int top)
