from shadowmmu.engine.state cimport Kvm, MemSlot, ShadowPage, gfn_t, spte_t, u64

cdef gfn_t sp_gfn_of(ShadowPage *sp, int index) noexcept nogil
cdef int sp_access_of(ShadowPage *sp, int index) noexcept nogil
cdef void set_translation(Kvm *kvm, ShadowPage *sp, int index, gfn_t gfn, int access) noexcept nogil
cdef void set_access(Kvm *kvm, ShadowPage *sp, int index, int access) noexcept nogil
cdef bint spte_update(Kvm *kvm, spte_t *sptep, spte_t value) noexcept nogil
cdef u64 clear_track_bits(Kvm *kvm, spte_t *sptep) noexcept nogil
cdef void drop_spte(Kvm *kvm, spte_t *sptep) noexcept nogil
cdef void rmap_add(Kvm *kvm, MemSlot *slot, spte_t *sptep, gfn_t gfn, int access) noexcept nogil
cdef bint spte_write_protect(Kvm *kvm, spte_t *sptep, bint pt_protect) noexcept nogil
cdef bint rmap_write_protect(Kvm *kvm, u64 *head, bint pt_protect) noexcept nogil
cdef bint zap_all_rmap_sptes(Kvm *kvm, u64 *head) noexcept nogil
cdef bint slot_write_protect_gfn(Kvm *kvm, MemSlot *slot, gfn_t gfn, int min_level) noexcept nogil
