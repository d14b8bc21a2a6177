# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.role cimport role_level
from shadowmmu.engine.arena.state cimport LEVEL_BITS, PAGE_SHIFT, Bug, Kvm, MemSlot, ShadowPage, gfn_t, spte_t, u64, warn

cdef int sp_access_of(ShadowPage *sp, int index) noexcept nogil
cdef bint spte_update(Kvm *kvm, spte_t *sptep, spte_t value) noexcept nogil
cdef u64 clear_track_bits(Kvm *kvm, spte_t *sptep) noexcept nogil
cdef void drop_spte(Kvm *kvm, spte_t *sptep) noexcept nogil
cdef void rmap_add(Kvm *kvm, MemSlot *slot, spte_t *sptep, gfn_t gfn, int access) noexcept nogil
cdef bint spte_write_protect(Kvm *kvm, spte_t *sptep, bint pt_protect) noexcept nogil
cdef bint rmap_write_protect(Kvm *kvm, u64 *head, bint pt_protect) noexcept nogil
cdef bint age_rmap(Kvm *kvm, u64 *head) noexcept nogil
cdef bint zap_all_rmap_sptes(Kvm *kvm, u64 *head) noexcept nogil
cdef bint slot_write_protect_gfn(Kvm *kvm, MemSlot *slot, gfn_t gfn, int min_level) noexcept nogil


cdef inline gfn_t sp_gfn_of(ShadowPage *sp, int index) noexcept nogil:
    """kvm_mmu_page_get_gfn: what entry `index` maps; a direct page's entries map consecutive gfns."""
    if sp.translation != NULL:
        return sp.translation[index] >> PAGE_SHIFT
    return sp.gfn + (<gfn_t>index << (LEVEL_BITS * (role_level(sp.role) - 1)))


cdef inline void set_translation(Kvm *kvm, ShadowPage *sp, int index, gfn_t gfn, int access) noexcept nogil:
    """kvm_mmu_page_set_translation: remember what an entry of an indirect page maps; a direct page must agree already."""
    if sp.translation != NULL:
        sp.translation[index] = gfn << PAGE_SHIFT | <u64>access
    elif gfn != sp_gfn_of(sp, index):
        warn(kvm, Bug.BUG_RMAP_GFN)


cdef inline void set_access(Kvm *kvm, ShadowPage *sp, int index, int access) noexcept nogil:
    """kvm_mmu_page_set_access: a leaf that stays has other rights now."""
    set_translation(kvm, sp, index, sp_gfn_of(sp, index), access)


cdef inline void update_page_stats(Kvm *kvm, int level, int count) noexcept nogil:
    if level == 1:
        kvm.stat.pages_4k += count
    elif level == 2:
        kvm.stat.pages_2m += count
    else:
        kvm.stat.pages_1g += count
