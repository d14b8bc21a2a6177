# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, KvmVcpu, gfn_t, gpa_t, gva_t, spte_t, u64

cdef void mark_mmio_spte(KvmVcpu *vcpu, spte_t *sptep, gfn_t gfn, int access) noexcept nogil
cdef bint sync_mmio_spte(KvmVcpu *vcpu, spte_t *sptep, gfn_t gfn, int access) noexcept nogil
cdef bint check_mmio_spte(KvmVcpu *vcpu, spte_t spte) noexcept nogil
cdef void cache_mmio_info(KvmVcpu *vcpu, gva_t gva, gfn_t gfn, int access) noexcept nogil
cdef void clear_mmio_info(KvmVcpu *vcpu, gva_t gva) noexcept nogil
cdef bint mmio_info_in_cache(KvmVcpu *vcpu, u64 addr, bint direct) noexcept nogil
cdef u64 mmio_generation(KvmVcpu *vcpu) noexcept nogil
cdef enum AllGva:
    MMIO_GVA_ANY = 0xFFFFFFFFFFFFFFFF
cdef int handle_mmio_page_fault(KvmVcpu *vcpu, u64 addr) noexcept nogil
