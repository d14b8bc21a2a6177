# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmMmu, KvmVcpu, ListHead, ShadowPage, gpa_t, u64

cdef int sync_sp(KvmVcpu *vcpu, ShadowPage *sp, ListHead *invalid) noexcept nogil
cdef int sync_children(KvmVcpu *vcpu, ShadowPage *parent, bint can_yield) noexcept nogil
cdef bint sync_spte(KvmVcpu *vcpu, ShadowPage *sp, int i, u64 gpte) noexcept nogil
cdef gpa_t level1_sp_gpa(ShadowPage *sp) noexcept nogil
cdef bint same_mode(KvmMmu *mmu, ShadowPage *sp) noexcept nogil
