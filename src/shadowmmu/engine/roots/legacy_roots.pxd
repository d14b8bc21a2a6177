from shadowmmu.engine.arena.state cimport Kvm, KvmMmu, KvmVcpu, ListHead, ShadowPage, gfn_t, hpa_t, role_t, spte_t, u64

cdef ShadowPage *alloc_root(KvmVcpu *vcpu, gfn_t gfn, int quadrant, int level) noexcept nogil
cdef void put_root_page(Kvm *kvm, hpa_t *root, ListHead *invalid) noexcept nogil
cdef void legacy_load_direct(KvmVcpu *vcpu) noexcept nogil
cdef int legacy_read_pdptrs(KvmVcpu *vcpu, u64 *pdptrs) noexcept nogil
cdef void legacy_load_shadow(KvmVcpu *vcpu, gfn_t root_gfn, u64 *pdptrs) noexcept nogil
cdef void legacy_free(Kvm *kvm, KvmMmu *mmu, ListHead *invalid) noexcept nogil
cdef void legacy_sync(KvmVcpu *vcpu) noexcept nogil
