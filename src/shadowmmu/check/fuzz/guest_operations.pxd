# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.fuzz.l2_operations cimport L2Operations
from shadowmmu.check.oracle.virtual_tlb cimport VirtualTlb
from shadowmmu.hardware.cpu cimport ModelCpu

cdef class GuestOperations(L2Operations):
    @cython.locals(tlb=VirtualTlb, levels=int)
    cpdef u64 _address(self, int index, u64 gva) except? 1
    @cython.locals(index=int, gva=u64, access=u64, tlb=VirtualTlb, cpu=ModelCpu, edits=cython.longlong)
    cpdef str _access(self, object op)
    @cython.locals(cpu=ModelCpu, how=int)
    cpdef object _check_noted(self, int index, u64 gva, u64 access)
    @cython.locals(index=int, gpa=u64, size=int, tlb=VirtualTlb, cpu=ModelCpu)
    cpdef str _poke(self, object op)
