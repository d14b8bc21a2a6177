from shadowmmu.engine.leaf cimport PageFault
from shadowmmu.engine.state cimport Kvm, MemSlot, gfn_t, spte_t

cdef int max_mapping_level(Kvm *kvm, MemSlot *slot, gfn_t gfn, int max_level) noexcept nogil
cdef void hugepage_adjust(Kvm *kvm, PageFault *fault) noexcept nogil
cdef void disallowed_hugepage_adjust(PageFault *fault, spte_t spte, int level) noexcept nogil
