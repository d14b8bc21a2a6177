from shadowmmu.engine.memory.rmap cimport drop_spte
from shadowmmu.engine.arena.state cimport KvmMmu, KvmVcpu, ListHead, ShadowPage, gpa_t, spte_t, u64
from shadowmmu.engine.guest.walker cimport accessed_bit, gpte_present, have_ad
from shadowmmu.x86.reserved cimport is_rsvd

cdef int sync_sp(KvmVcpu *vcpu, ShadowPage *sp, ListHead *invalid) noexcept nogil
cdef int sync_children(KvmVcpu *vcpu, ShadowPage *parent) noexcept nogil
cdef gpa_t level1_sp_gpa(ShadowPage *sp) noexcept nogil
cdef bint same_mode(KvmMmu *mmu, ShadowPage *sp) noexcept nogil


cdef inline bint prefetch_invalid_gpte(KvmVcpu *vcpu, spte_t *sptep, u64 gpte) noexcept nogil:
    """The guest entry cannot be mapped without a fault (not present, A clear, reserved bits): drop what is there."""
    cdef KvmMmu *mmu = vcpu.mmu
    cdef bint usable = gpte_present(mmu.format, gpte)
    if have_ad(mmu) and not gpte & accessed_bit(mmu.format):
        usable = False
    if usable and not is_rsvd(&mmu.guest_rsvd, gpte, 1):
        return False
    drop_spte(vcpu.kvm, sptep)
    return True
