# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.audit.auditor cimport Auditor, next_used
from shadowmmu.engine.arena.state cimport Kvm, KvmMmu, ShadowPage

cdef ShadowPage *next_special(Kvm *kvm, ShadowPage *sp) noexcept
cdef ShadowPage *first_special(Kvm *kvm, KvmMmu *mmu) noexcept
cdef bint is_reached(Kvm *kvm, KvmMmu *mmu, ShadowPage *sp) noexcept
cdef bint belongs(Kvm *kvm, ShadowPage *sp) noexcept
