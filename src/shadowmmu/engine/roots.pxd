from shadowmmu.engine.state cimport Kvm, KvmMmu, KvmVcpu, hpa_t, u64

cpdef enum RootMask:
    ROOT_CURRENT = 1                        # KVM_MMU_ROOT_CURRENT; previous root i is 2 << i
    ROOTS_ALL = 0xFFFFFFFFFFFFFFFF

cdef int mmu_load(KvmVcpu *vcpu) noexcept nogil
cdef void free_roots(Kvm *kvm, KvmMmu *mmu, u64 mask) noexcept nogil
cdef void new_pgd(KvmVcpu *vcpu, u64 pgd) noexcept nogil
cdef void sync_roots(KvmVcpu *vcpu) noexcept nogil
cdef void sync_prev_roots(KvmVcpu *vcpu) noexcept nogil
cdef void free_obsolete_roots(KvmVcpu *vcpu) noexcept nogil
cdef void free_guest_mode_roots(KvmVcpu *vcpu, KvmMmu *mmu) noexcept nogil
cdef void mmu_unload(KvmVcpu *vcpu) noexcept nogil
cdef void reset_context(KvmVcpu *vcpu) noexcept nogil
cdef void load_pgd(KvmVcpu *vcpu) noexcept nogil
cdef bint is_root_stale(KvmVcpu *vcpu) noexcept nogil
