# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, MemSlot, ShadowPage, gfn_t, pfn_t, spte_t

cdef bint make_spte(KvmVcpu *vcpu, ShadowPage *sp, MemSlot *slot, int access, gfn_t gfn, pfn_t pfn, spte_t old,
                    bint prefetch, bint can_unsync, bint host_writable, spte_t *made) noexcept nogil
