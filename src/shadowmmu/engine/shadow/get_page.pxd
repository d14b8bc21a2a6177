# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, ShadowPage, gfn_t, role_t, spte_t

cdef ShadowPage *get_shadow_page(KvmVcpu *vcpu, gfn_t gfn, role_t role) noexcept nogil
cdef ShadowPage *get_child_sp(KvmVcpu *vcpu, spte_t *sptep, gfn_t gfn, bint direct, int access) noexcept nogil
