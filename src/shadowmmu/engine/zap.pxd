from shadowmmu.engine.state cimport Kvm, KvmVcpu, ListHead, ShadowPage, gfn_t, spte_t, u64

cdef enum:
    MIN_FREE_PAGES = 5                      # KVM_MIN_FREE_MMU_PAGES: recycle below this
    REFILL_PAGES = 25                       # KVM_REFILL_PAGES: and then up to this
    CACHE_PAGES = 5                         # a fault's most: one page a level
    CACHE_DESCS = 40                        # a fault's most, and some for an INVLPG

cdef bint prepare_zap(Kvm *kvm, ShadowPage *sp, ListHead *invalid, u64 *zapped) noexcept nogil
cdef bint prepare_zap_page(Kvm *kvm, ShadowPage *sp, ListHead *invalid) noexcept nogil
cdef u64 zap_pte(Kvm *kvm, ShadowPage *sp, spte_t *sptep, ListHead *invalid) noexcept nogil
cdef void commit_zap(Kvm *kvm, ListHead *invalid) noexcept nogil
cdef void remote_flush_or_zap(Kvm *kvm, ListHead *invalid, bint flush) noexcept nogil
cdef u64 zap_oldest_pages(Kvm *kvm, u64 nr_to_zap) noexcept nogil
cdef int make_pages_available(Kvm *kvm) noexcept nogil
cdef int topup_memory_caches(Kvm *kvm) noexcept nogil
cdef void change_mmu_pages(Kvm *kvm, u64 goal) noexcept nogil
cdef void zap_all_fast(Kvm *kvm) noexcept nogil
cdef bint unprotect_page(Kvm *kvm, gfn_t gfn) noexcept nogil
