# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.entries.leaf cimport PageFault, Pfn
from shadowmmu.engine.arena.state cimport Kvm, MemSlot, gfn_t, spte_t

cdef int max_mapping_level(Kvm *kvm, MemSlot *slot, gfn_t gfn, int max_level) noexcept nogil
cdef void disallowed_hugepage_adjust(Kvm *kvm, PageFault *fault, spte_t spte, int level) noexcept nogil


cdef void choose_hugepage(Kvm *kvm, PageFault *fault) noexcept nogil


cdef inline void hugepage_adjust(Kvm *kvm, PageFault *fault) noexcept nogil:
    """kvm_mmu_hugepage_adjust: choose the goal level and round the frame to it.

    While the slot logs dirty pages only 4K is mapped, so that each write is seen.
    """
    fault.huge_page_disallowed = fault.fetch and kvm.nx_huge_pages != 0
    if fault.max_level > 1 and fault.slot != NULL and fault.pfn != Pfn.PFN_NOSLOT:
        choose_hugepage(kvm, fault)
