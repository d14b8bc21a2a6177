# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmMmu, KvmVcpu, gva_t, hpa_t, u64

cdef void invalidate_gva(KvmVcpu *vcpu, KvmMmu *mmu, gva_t gva, hpa_t root) noexcept nogil
cdef void kvm_invlpg(KvmVcpu *vcpu, gva_t gva) noexcept nogil
