from shadowmmu.engine.state cimport Kvm, MemSlot, ShadowPage, gfn_t

cdef enum:
    PAGE_ARRAY_NR = 16                      # KVM_PAGE_ARRAY_NR: path entries collected by one walk

cdef struct PathEntry:
    ShadowPage *sp
    int index                               # in its parent; -1 for the top page

cdef struct PageVec:                        # kvm_mmu_pages: unsync pages with the paths that lead to them
    PathEntry page[PAGE_ARRAY_NR]
    int nr

cdef struct Parents:                        # mmu_page_path: the path of the page at hand
    ShadowPage *parent[5]
    int index[5]

cdef int unsync_walk(Kvm *kvm, ShadowPage *sp, PageVec *vec) noexcept nogil
cdef int pages_first(PageVec *vec, Parents *parents) noexcept nogil
cdef int pages_next(PageVec *vec, Parents *parents, int i) noexcept nogil
cdef void clear_parents(Kvm *kvm, Parents *parents) noexcept nogil
cdef void unlink_unsync_page(Kvm *kvm, ShadowPage *sp) noexcept nogil
cdef int try_to_unsync_pages(Kvm *kvm, gfn_t gfn, bint can_unsync, bint prefetch) noexcept nogil
