from shadowmmu.engine.state cimport Kvm, KvmMmu, MemSlot, ShadowPage, spte_t, u8, u64
from shadowmmu.engine.vm cimport Vm

cdef class Auditor:
    cdef Vm vm
    cdef Kvm *kvm
    cdef list found
    cdef u8 *seen                           # one byte an entry of every table: how often reverse lists name it
    cdef u64 seen_size
    cdef void say(self, object id, object text)
    cdef object page_name(self, ShadowPage *sp)
    cdef object entry_name(self, ShadowPage *sp, int index)
    cdef ShadowPage *mark(self, spte_t *sptep) noexcept
    cdef ShadowPage *owner(self, spte_t *sptep) noexcept
    cdef object validate_rmap(self, MemSlot *slot, int level, u64 number, u64 head)
    cdef object validate_leaf(self, ShadowPage *sp, int index)
    cdef object validate_link(self, ShadowPage *sp, int index)
    cdef bint has_unsync(self, ShadowPage *sp) noexcept
    cdef object hold(self, dict held, KvmMmu *mmu, u64 hpa, bint current)
    cdef object validate_special(self, ShadowPage *sp, int vcpu, int top)
    cdef object validate_slot(self, MemSlot *slot, dict tracked, dict causes)
