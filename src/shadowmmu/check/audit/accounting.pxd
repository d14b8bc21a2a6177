# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.audit.auditor cimport Auditor
from shadowmmu.engine.arena.state cimport Kvm, MemSlot, ShadowPage, gfn_t, u64

cdef bint is_counted(ShadowPage *sp) noexcept
cdef bint in_slot(MemSlot *slot, ShadowPage *sp) noexcept
cdef int upper_tables(Kvm *kvm, int as_id, gfn_t gfn) noexcept
cdef bint edge_cause(MemSlot *slot, int level, u64 n, u64 count) noexcept
