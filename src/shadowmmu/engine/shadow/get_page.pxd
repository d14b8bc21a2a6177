from shadowmmu.engine.arena.role cimport Role, child_role
from shadowmmu.engine.arena.spte cimport is_large, is_present
from shadowmmu.engine.arena.state cimport Bug, KvmVcpu, ShadowPage, gfn_t, role_t, spte_index, spte_t, sptep_to_sp, to_shadow_page, unlikely, warn

cdef ShadowPage *get_shadow_page(KvmVcpu *vcpu, gfn_t gfn, role_t role) noexcept nogil


cdef ShadowPage *make_child_sp(KvmVcpu *vcpu, ShadowPage *parent, spte_t *sptep, gfn_t gfn, role_t role) noexcept nogil


cdef inline ShadowPage *get_child_sp(KvmVcpu *vcpu, spte_t *sptep, gfn_t gfn, bint direct, int access) noexcept nogil:
    """The page to link at `sptep`, or NULL if the right one is linked already.

    A present entry is right only if its child's gfn and role are what would be asked for now. A PDPT is not
    write-protected, so the guest may have changed it since (H4); tables in use as two kinds change meaning
    (CVE-2026-46113, CVE-2026-53359).

    Below a special page, levels 3 and above are special too (R13): no hash, no trace, no statistics.
    """
    cdef ShadowPage *parent = sptep_to_sp(vcpu.kvm, sptep)
    if unlikely(parent.role & Role.INVALID):
        warn(vcpu.kvm, Bug.BUG_INVALID_CHILD)
    cdef role_t role = child_role(parent.role, spte_index(sptep), direct, access)
    cdef ShadowPage *child
    if is_present(sptep[0]) and not is_large(sptep[0]):
        child = to_shadow_page(vcpu.kvm, sptep[0])
        if child.gfn == gfn and child.role == role:
            return NULL
    return make_child_sp(vcpu, parent, sptep, gfn, role)
