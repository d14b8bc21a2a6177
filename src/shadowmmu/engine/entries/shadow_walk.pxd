# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.role cimport role_level
from shadowmmu.engine.arena.spte cimport is_last, is_present
from shadowmmu.engine.arena.state cimport Kvm, KvmVcpu, ShadowPage, dummy_root, hpa_t, spte_t, to_shadow_page, u64

cdef struct ShadowWalk:                     # kvm_shadow_walk_iterator
    Kvm *kvm
    u64 addr
    spte_t *table                           # of the present level
    spte_t *sptep                           # entry of `addr` in it, set by walk_okay
    int level                               # 0: the walk is over
    bint special                            # the root is a special page
ctypedef ShadowWalk *ShadowWalkPtr


cdef inline bint walk_okay(ShadowWalk *it) noexcept nogil:
    """shadow_walk_okay: there is an entry at this level: point `it.sptep` to it."""
    if it.level < 1:
        return False
    cdef u64 index = (it.addr >> (12 + 9 * (it.level - 1))) & 511
    # A special level-3 page has 4 entries; the walker lets no address past 4 GiB come this far (H2).
    if it.level == 3 and it.special:
        index &= 3
    it.sptep = it.table + index
    return True


cdef inline void walk_init(ShadowWalk *it, KvmVcpu *vcpu, hpa_t root, u64 addr) noexcept nogil:
    """Begin at `root`, a root of the MMU in use; the tables of a bare one are skipped, they have no shadow page.

    In the kernel: shadow_walk_init_using_root, shadow_walk_init.
    """
    it.kvm = vcpu.kvm
    it.addr = addr
    cdef ShadowPage *sp = to_shadow_page(vcpu.kvm, root)
    if sp == NULL:
        it.special = False
        if root == dummy_root(vcpu.kvm):
            it.level = 0
            return
        vcpu.kvm.root_ops.walk_start(vcpu, addr, &it.level, &it.table)
        return
    it.level = role_level(sp.role)
    it.special = sp.special
    it.table = sp.spt


cdef inline void walk_next(ShadowWalk *it) noexcept nogil:
    """__shadow_walk_next, shadow_walk_next: descend; a leaf or an absent entry ends the walk."""
    cdef spte_t spte = it.sptep[0]
    if not is_present(spte) or is_last(spte, it.level):
        it.level = 0
        return
    it.table = to_shadow_page(it.kvm, spte).spt
    it.level -= 1
