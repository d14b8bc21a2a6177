# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, MemSlot, gfn_t, gva_t, hpa_t, pfn_t, spte_t, u64

cpdef enum Pfn:
    PFN_NOSLOT = 0x8000000000000000         # no memory there
    PFN_ERR_FAULT = 0x7FF0000000000000      # the host cannot give the page
    PFN_ERR_RO = 0x7FF0000000000002         # a write to a read-only slot

cdef struct PageFault:                      # struct kvm_page_fault
    gva_t addr
    u64 error_code
    bint fetch, write, user, present, rsvd, is_tdp
    bint map_writable
    bint huge_page_disallowed
    int max_level, req_level, goal_level
    gfn_t gfn
    MemSlot *slot
    pfn_t pfn
    u64 hva                                 # host user page
    u64 mmu_seq
ctypedef PageFault *PageFaultPtr

cdef int set_spte(KvmVcpu *vcpu, MemSlot *slot, spte_t *sptep, int access, gfn_t gfn, pfn_t pfn, PageFault *fault) noexcept nogil
