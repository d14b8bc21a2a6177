# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.engine.arena.state cimport KvmVcpu

cdef enum:
    PLACES = 256               # a power of two

cdef struct Translation:
    uint64_t page              # of the linear address
    uint64_t access
    uint64_t place             # of the page
    uint64_t age               # of `Tlb.age`: else it is none any more

cdef struct WalksWith:         # what the CPU's walk depends on, beside the tables
    uint64_t root, cr0, cr4, efer
    int ac

cdef struct Tlb:
    Translation kept[PLACES]
    uint64_t age
    WalksWith walked_with
ctypedef Tlb *TlbPtr
ctypedef Translation *TranslationPtr

cdef void drop_all(TlbPtr tlb) noexcept nogil
cdef void begin_delivery(TlbPtr tlb, KvmVcpu *vcpu) noexcept nogil
cdef TranslationPtr place_for(TlbPtr tlb, uint64_t page, uint64_t access) noexcept nogil
cdef bint is_kept(TlbPtr tlb, TranslationPtr found, uint64_t page, uint64_t access) noexcept nogil
cdef void keep_place(TlbPtr tlb, uint64_t page, uint64_t access, uint64_t place) noexcept nogil

cdef class Translations:
    cdef Tlb tlb
