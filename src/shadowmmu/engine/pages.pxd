from shadowmmu.engine.state cimport Kvm, ListHead, ShadowPage, gfn_t, role_t, spte_t, u64

cdef enum:
    POISON = 0x6B                           # byte that fills freed tables

cdef inline u64 hash_bucket(gfn_t gfn) noexcept nogil:
    """kvm_page_table_hashfn: hash_64(gfn, 12)."""
    return (gfn * <u64>0x61C8864680B583EBULL) >> 52


cdef inline bint is_obsolete(Kvm *kvm, ShadowPage *sp) noexcept nogil:
    """is_obsolete_sp: zapped as a whole (role.invalid), or of the generation that is being zapped."""
    return sp.role & 0x800 or sp.mmu_valid_gen != kvm.mmu_valid_gen


cdef ShadowPage *next_valid(Kvm *kvm, ShadowPage *sp) noexcept nogil
cdef ShadowPage *first_valid(Kvm *kvm, gfn_t gfn) noexcept nogil
cdef ShadowPage *next_with_gptes(Kvm *kvm, ShadowPage *sp, gfn_t gfn) noexcept nogil
cdef ShadowPage *first_with_gptes(Kvm *kvm, gfn_t gfn) noexcept nogil
cdef ShadowPage *take_header(Kvm *kvm) noexcept nogil
cdef void give_header(Kvm *kvm, ShadowPage *sp) noexcept nogil
cdef ShadowPage *alloc_shadow_page(Kvm *kvm, gfn_t gfn, role_t role) noexcept nogil
cdef void free_shadow_page(Kvm *kvm, ShadowPage *sp) noexcept nogil
cdef void unaccount_shadowed(Kvm *kvm, ShadowPage *sp) noexcept nogil
cdef void mark_unsync(Kvm *kvm, spte_t *sptep) noexcept nogil
cdef void mark_parents_unsync(Kvm *kvm, ShadowPage *sp) noexcept nogil
cdef void add_parent_pte(Kvm *kvm, ShadowPage *sp, spte_t *parent_pte) noexcept nogil
cdef void drop_parent_pte(Kvm *kvm, ShadowPage *sp, spte_t *parent_pte) noexcept nogil
cdef void link_shadow_page(Kvm *kvm, spte_t *sptep, ShadowPage *sp, int root_level) noexcept nogil
cdef void disallow_huge(Kvm *kvm, ShadowPage *sp, bint possible) noexcept nogil
cdef void unaccount_nx_huge_page(Kvm *kvm, ShadowPage *sp) noexcept nogil
cdef void clear_write_flooding(Kvm *kvm, spte_t *sptep) noexcept nogil
