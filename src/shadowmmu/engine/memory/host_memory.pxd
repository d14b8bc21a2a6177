# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport HvaFlag, Kvm, MemSlot, u64
from shadowmmu.engine.memory.memslots cimport hva_entry

ctypedef bint (*rmap_handler_t)(Kvm *kvm, u64 *head) noexcept nogil

cdef inline bint host_writable(u64 mapping) noexcept nogil:
    """The frame may be written now: the host allows it, and no write must come first (a page of zeroes, a clean huge page)."""
    return (mapping & (HvaFlag.HVA_WRITABLE | HvaFlag.HVA_NO_WRITE_YET)) == HvaFlag.HVA_WRITABLE


cdef bint unmap_in_slot(Kvm *kvm, MemSlot *slot, u64 start, u64 end) noexcept nogil
cdef void unmap_hva_range(Kvm *kvm, u64 start, u64 end) noexcept nogil
cdef bint age_hva_range(Kvm *kvm, u64 start, u64 end) noexcept nogil
cdef void discard_hva_range(Kvm *kvm, u64 start, u64 end) noexcept nogil
cdef bint back_by_level(Kvm *kvm, u64 start, u64 end, int level) noexcept nogil
cdef void move_host_page(Kvm *kvm, u64 hva_page) noexcept nogil
cdef void protect_hva_range(Kvm *kvm, u64 start, u64 end, bint writable) noexcept nogil


cdef u64 map_host_page(Kvm *kvm, u64 hva_page, bint write) noexcept nogil


cdef inline u64 fault_in_host_page(Kvm *kvm, u64 hva_page, bint write) noexcept nogil:
    """get_user_pages: the mapping after a host access."""
    cdef u64 entry = hva_entry(kvm, hva_page)
    if entry & HvaFlag.HVA_PRESENT and not (write and entry & HvaFlag.HVA_NO_WRITE_YET):
        return entry
    return map_host_page(kvm, hva_page, write)
