# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, MemSlot, u64

cdef void slot_remove_write_access(Kvm *kvm, MemSlot *slot, int start_level) noexcept nogil
cdef void zap_collapsible_sptes(Kvm *kvm, MemSlot *slot) noexcept nogil
cdef void write_protect_pt_masked(Kvm *kvm, MemSlot *slot, u64 offset, u64 mask) noexcept nogil
cdef void get_dirty_log(Kvm *kvm, MemSlot *slot, u64 *into) noexcept nogil
cdef void clear_dirty_log(Kvm *kvm, MemSlot *slot, u64 first_page, u64 pages, u64 *bitmap) noexcept nogil
