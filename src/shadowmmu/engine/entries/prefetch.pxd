# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, spte_t, u64
from shadowmmu.engine.guest.walker cimport GuestWalker

cdef bint prefetch_invalid_gpte(KvmVcpu *vcpu, spte_t *sptep, u64 gpte) noexcept nogil
cdef bint prefetch_gpte(KvmVcpu *vcpu, spte_t *sptep, u64 gpte, bint no_dirty_log) noexcept nogil
cdef void pte_prefetch(KvmVcpu *vcpu, GuestWalker *walker, spte_t *sptep) noexcept nogil
cdef void direct_pte_prefetch(KvmVcpu *vcpu, spte_t *sptep) noexcept nogil
