# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    MOST_LEAVES = 24
    APIC_BIT = 1 << 9          # of EDX
    OSXSAVE_BIT = 1 << 27      # of ECX

cdef struct CpuidLeaf:
    uint32_t number, subleaf
    bint all                   # subleaves are the same
    bint echoes                # the low byte of ECX is that of the subleaf
    uint32_t eax, ebx, ecx, edx
ctypedef CpuidLeaf *CpuidLeafPtr

cdef struct Leaves:
    int count
    CpuidLeaf leaf[MOST_LEAVES]
ctypedef Leaves *LeavesPtr

cdef bint find_leaf(LeavesPtr leaves, uint32_t number, uint32_t subleaf, uint64_t cr4, bint apic_on, CpuidLeafPtr into) noexcept nogil

cdef class CpuidLeaves:
    cdef Leaves leaves
