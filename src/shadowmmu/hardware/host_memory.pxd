# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint64_t

from shadowmmu.hardware.walk cimport Tables

ctypedef uint8_t *p_byte

cdef enum:
    REGIONS = 4

cdef struct Region:
    uint64_t start, end
    uint8_t *at
ctypedef Region *RegionPtr

cdef class HostMemory(Tables):
    cdef Region regions[REGIONS]
    cdef int count
    cdef p_byte place(self, uint64_t hpa, int size) except NULL
