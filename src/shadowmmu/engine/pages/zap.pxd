# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, KvmVcpu, ListHead, ShadowPage, gfn_t, spte_t, u64

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
cdef void change_mmu_pages(Kvm *kvm, u64 goal) noexcept nogil
cdef void zap_all_fast(Kvm *kvm) noexcept nogil
cdef void prepare_zap_shadows(Kvm *kvm, gfn_t gfn, ListHead *invalid) noexcept nogil
cdef bint unprotect_page(Kvm *kvm, gfn_t gfn) noexcept nogil


cdef int refill_memory_caches(Kvm *kvm) noexcept nogil
cdef int recycle_pages(Kvm *kvm) noexcept nogil


cdef inline u64 available_pages(Kvm *kvm) noexcept nogil:
    """kvm_mmu_available_pages: how many more pages the limit allows."""
    return kvm.n_max_mmu_pages - kvm.n_used_mmu_pages if kvm.n_max_mmu_pages > kvm.n_used_mmu_pages else 0


cdef inline int topup_memory_caches(Kvm *kvm) noexcept nogil:
    """mmu_topup_memory_caches: nothing that follows may run out of headers, tables or descriptors. 0 or -ENOMEM.

    The kernel fills per-vCPU caches and may sleep for memory; here the pools are fixed, so the oldest pages give
    their memory back.
    """
    if kvm.nfree_pages >= CACHE_PAGES and kvm.nfree_descs >= CACHE_DESCS:
        return 0
    return refill_memory_caches(kvm)


cdef inline int make_pages_available(Kvm *kvm) noexcept nogil:
    """make_mmu_pages_available: recycle when fewer than 5 pages are left. 0 or -ENOSPC."""
    return 0 if available_pages(kvm) >= MIN_FREE_PAGES else recycle_pages(kvm)
