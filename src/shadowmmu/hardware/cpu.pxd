# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.hardware.held cimport Held
from shadowmmu.hardware.host_memory cimport HostMemory
from shadowmmu.hardware.tlb cimport Tlb
from shadowmmu.hardware.walk cimport Paging

cdef class ModelCpu:
    cdef public object vcpu, features, observer, root, tag, pdptes, entered, instruction
    cdef public HostMemory memory
    cdef public int npt_levels
    cdef public Tlb tlb
    cdef public Held held
    cdef public Paging mode
