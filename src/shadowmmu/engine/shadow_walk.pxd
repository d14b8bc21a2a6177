from shadowmmu.engine.state cimport Kvm, KvmVcpu, hpa_t, spte_t, u64

cdef struct ShadowWalk:                     # kvm_shadow_walk_iterator
    Kvm *kvm
    u64 addr
    spte_t *table                           # of the present level
    spte_t *sptep                           # entry of `addr` in it, set by walk_okay
    int level                               # 0: the walk is over
    bint special                            # the root is a special page


cdef inline bint walk_okay(ShadowWalk *it) noexcept nogil:
    """There is an entry at this level: point `it.sptep` to it."""
    if it.level < 1:
        return False
    cdef u64 index = (it.addr >> (12 + 9 * (it.level - 1))) & 511
    # A special level-3 page has 4 entries; the walker lets no address past 4 GiB come this far (H2).
    if it.level == 3 and it.special:
        index &= 3
    it.sptep = it.table + index
    return True


cdef void walk_init(ShadowWalk *it, KvmVcpu *vcpu, hpa_t root, u64 addr) noexcept nogil
cdef void walk_next(ShadowWalk *it) noexcept nogil
