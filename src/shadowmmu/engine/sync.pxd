from shadowmmu.engine.state cimport KvmMmu, KvmVcpu, ListHead, ShadowPage, gpa_t, spte_t, u64

cdef int sync_sp(KvmVcpu *vcpu, ShadowPage *sp, ListHead *invalid) noexcept nogil
cdef int sync_children(KvmVcpu *vcpu, ShadowPage *parent) noexcept nogil
cdef bint prefetch_invalid_gpte(KvmVcpu *vcpu, spte_t *sptep, u64 gpte) noexcept nogil
cdef gpa_t level1_sp_gpa(ShadowPage *sp) noexcept nogil
cdef bint same_mode(KvmMmu *mmu, ShadowPage *sp) noexcept nogil
