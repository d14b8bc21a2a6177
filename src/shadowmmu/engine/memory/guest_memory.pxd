# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.memory.memslots cimport gfn_to_memslot, host_mapping
from shadowmmu.engine.arena.state cimport PAGE_SHIFT, PAGE_SIZE, HvaFlag, Kvm, MemSlot, gpa_t, pfn_memory, u64, u8, unlikely

cdef u8 *fault_in_guest_bytes(Kvm *kvm, MemSlot *slot, gpa_t gpa, bint write) noexcept nogil


cdef inline u8 *guest_bytes(Kvm *kvm, int as_id, gpa_t gpa, bint write) noexcept nogil:
    """The host memory behind a guest physical address, to the end of its page.

    NULL outside all valid slots, and for `write` where slot or host forbid it.
    """
    cdef MemSlot *slot = gfn_to_memslot(kvm, as_id, gpa >> PAGE_SHIFT)
    if slot == NULL:
        return NULL
    cdef u64 entry = host_mapping(kvm, slot, gpa >> PAGE_SHIFT)
    cdef u64 wanted = HvaFlag.HVA_PRESENT | HvaFlag.HVA_WRITABLE
    # The common case: an ordinary slot, and a page of its own behind it that may be read and written.
    if unlikely(slot.flags or (entry & (wanted | HvaFlag.HVA_NO_WRITE_YET)) != wanted):
        return fault_in_guest_bytes(kvm, slot, gpa, write)
    return pfn_memory(kvm, entry >> PAGE_SHIFT) + (gpa & (PAGE_SIZE - 1))


cdef bint read_guest(Kvm *kvm, int as_id, gpa_t gpa, void *into, u64 size) noexcept nogil
cdef bint write_guest(Kvm *kvm, int as_id, gpa_t gpa, void *data, u64 size) noexcept nogil


cpdef enum InterleavePoint:                 # where something else can be let in
    AFTER_WALK = 1                          # the guest walk is done, mmu_lock not yet taken
    BEFORE_GET_PAGE = 2                     # the top entry was checked, the page below it is not yet protected


cpdef enum InterleaveEvent:                 # what that is
    STORE = 0                               # another CPU stores to guest memory, at either point
    ZAP_ALL = 1                             # a memslot changes elsewhere: all pages become obsolete; after the walk
    MOVE_PAGE = 2                           # the host gives a page another frame; after the walk
