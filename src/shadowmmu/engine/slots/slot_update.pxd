# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, MemSlot, gfn_t, u64

cpdef enum SlotResult:
    SLOT_OK = 0
    SLOT_NO_ROOM = 1                        # all slot numbers, or all metadata space, are in use
    SLOT_OVERLAPS = 2
    SLOT_UNKNOWN = 3

cdef int slot_create(Kvm *kvm, int as_id, int id, gfn_t base_gfn, u64 npages, u64 hva, int flags) noexcept nogil
cdef int slot_delete(Kvm *kvm, int as_id, int id) noexcept nogil
cdef int slot_move(Kvm *kvm, int as_id, int id, gfn_t base_gfn, int flags) noexcept nogil
cdef int slot_set_flags(Kvm *kvm, int as_id, int id, int flags) noexcept nogil
