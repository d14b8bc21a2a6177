# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.audit.auditor cimport Auditor
from shadowmmu.engine.arena.state cimport Kvm, MemSlot, ShadowPage, gfn_t, u16, u64

cdef bint is_counted(ShadowPage *sp) noexcept
cdef bint in_slot(MemSlot *slot, ShadowPage *sp) noexcept
cdef int upper_tables(Kvm *kvm, int as_id, gfn_t gfn) noexcept
cdef bint edge_cause(MemSlot *slot, int level, u64 n, u64 count) noexcept


cdef inline u64 next_tracked(u16 *counts, u64 at, u64 end) noexcept nogil:
    """Index of the first of counts[at:end] that is not 0, or `end`. Most are."""
    while at < end:
        if at + 8 <= end and not (
            counts[at] | counts[at + 1] | counts[at + 2] | counts[at + 3]
            | counts[at + 4] | counts[at + 5] | counts[at + 6] | counts[at + 7]
        ):
            at += 8
        elif counts[at]:
            return at
        else:
            at += 1
    return end
