# SPDX-License-Identifier: GPL-2.0-only
cimport cython
from libc.stdint cimport uint64_t as u64

from shadowmmu.check.fuzz.slots cimport Slots
from shadowmmu.check.oracle.oracle cimport Oracle
from shadowmmu.check.oracle.virtual_tlb cimport VirtualTlb
from shadowmmu.hardware.host_memory cimport HostMemory

cdef class Stage:
    cdef readonly object setup, vm, features, untold
    cdef readonly bint hides_pdpte, nested, smm, amd, manual_log, alias
    cdef readonly int host_levels
    cdef readonly dict modes, reach
    cdef readonly HostMemory memory
    cdef readonly Slots slots
    cdef readonly Oracle oracle
    cdef readonly list cpus, pdptes, pkru, l1, l2, unmapped, emulated
    @cython.locals(tlb=VirtualTlb)
    cpdef tuple registers(self, int index)
