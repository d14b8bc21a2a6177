# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, KvmVcpu, ListHead, ShadowPage, gfn_t, hpa_t

cdef ShadowPage *alloc_root(KvmVcpu *vcpu, gfn_t gfn, int quadrant, int level) noexcept nogil
cdef int install_root(KvmVcpu *vcpu, ShadowPage *sp) noexcept nogil
cdef void put_root_page(Kvm *kvm, hpa_t *root, ListHead *invalid) noexcept nogil
