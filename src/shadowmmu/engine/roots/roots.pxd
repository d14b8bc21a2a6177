# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.pages.pages cimport is_obsolete
from shadowmmu.engine.arena.state cimport Hpa, Kvm, KvmMmu, KvmVcpu, Request, ShadowPage, hpa_t, to_shadow_page, u64
from shadowmmu.engine.arena.tlb cimport test_request

cpdef enum RootMask:
    ROOT_CURRENT = 1                        # KVM_MMU_ROOT_CURRENT; previous root i is 2 << i
    ROOTS_ALL = 0xFFFFFFFFFFFFFFFF

cdef int mmu_load(KvmVcpu *vcpu) noexcept nogil
cdef void free_roots(Kvm *kvm, KvmMmu *mmu, u64 mask) noexcept nogil
cdef void new_pgd(KvmVcpu *vcpu, u64 pgd) noexcept nogil
cdef void sync_roots(KvmVcpu *vcpu) noexcept nogil
cdef void sync_prev_roots(KvmVcpu *vcpu) noexcept nogil
cdef void free_obsolete_roots(KvmVcpu *vcpu) noexcept nogil
cdef void free_guest_mode_roots(KvmVcpu *vcpu, KvmMmu *mmu) noexcept nogil
cdef void mmu_unload(KvmVcpu *vcpu) noexcept nogil
cdef void reset_context(KvmVcpu *vcpu) noexcept nogil
cdef void load_pgd(KvmVcpu *vcpu) noexcept nogil


cdef inline bint is_root_stale(KvmVcpu *vcpu) noexcept nogil:
    """The root a fault was taken on is being given up: map nothing into it.

    A bare table cannot be asked, there any pending request counts.
    """
    if vcpu.mmu.root.hpa == Hpa.INVALID_PAGE:
        return True
    cdef ShadowPage *sp = to_shadow_page(vcpu.kvm, vcpu.mmu.root.hpa)
    if sp == NULL:
        return test_request(vcpu, Request.REQ_MMU_FREE_OBSOLETE_ROOTS)
    return is_obsolete(vcpu.kvm, sp)
