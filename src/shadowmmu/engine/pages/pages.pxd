# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.role cimport has_gptes
from shadowmmu.engine.arena.state cimport Kvm, ListHead, ShadowPage, gfn_t, role_t, spte_t, sptep_to_sp, u64
from shadowmmu.engine.pages.page_index cimport index_bucket

cdef enum:
    POISON = 0x6B                           # byte that fills freed tables

cdef inline bint is_obsolete(Kvm *kvm, ShadowPage *sp) noexcept nogil:
    """is_obsolete_sp: zapped as a whole (role.invalid), or of the generation that is being zapped."""
    return sp.role & 0x800 or sp.mmu_valid_gen != kvm.mmu_valid_gen


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
cdef void account_huge_nx_page(Kvm *kvm, ShadowPage *sp) noexcept nogil
cdef void unaccount_huge_nx_page(Kvm *kvm, ShadowPage *sp) noexcept nogil


cdef inline void clear_write_flooding(Kvm *kvm, spte_t *sptep) noexcept nogil:
    """The table was used as a table: emulated writes counted so far are forgiven.

    In the kernel: __clear_sp_write_flooding_count, clear_sp_write_flooding_count.
    """
    cdef ShadowPage *sp = sptep_to_sp(kvm, sptep)
    if sp != NULL:
        sp.write_flooding_count = 0


cdef inline ShadowPage *next_valid(Kvm *kvm, ShadowPage *sp, gfn_t gfn) noexcept nogil:
    """`sp` or the first page behind it that is of `gfn` and not obsolete (for_each_valid_sp, but for pages of other gfns)."""
    while sp != NULL and (sp.gfn != gfn or is_obsolete(kvm, sp)):
        sp = sp.index_next
    return sp


cdef inline ShadowPage *first_valid(Kvm *kvm, gfn_t gfn) noexcept nogil:
    return next_valid(kvm, index_bucket(kvm, gfn)[0], gfn)


cdef inline ShadowPage *next_with_gptes(Kvm *kvm, ShadowPage *sp, gfn_t gfn) noexcept nogil:
    """`sp` or the first page behind it that shadows the guest table at `gfn` (for_each_gfn_valid_sp_with_gptes)."""
    while sp != NULL and (sp.gfn != gfn or is_obsolete(kvm, sp) or not has_gptes(sp.role)):
        sp = sp.index_next
    return sp


cdef inline ShadowPage *first_with_gptes(Kvm *kvm, gfn_t gfn) noexcept nogil:
    return next_with_gptes(kvm, index_bucket(kvm, gfn)[0], gfn)
