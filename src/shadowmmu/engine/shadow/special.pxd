# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, KvmMmu, KvmVcpu, ShadowPage, role_t

cdef ShadowPage *alloc_special_page(KvmVcpu *vcpu, KvmMmu *mmu, role_t role) noexcept nogil
cdef void free_special_root(Kvm *kvm, ShadowPage *root) noexcept nogil
