# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport (
    ADDRESS_SPACES, LEVEL_BITS, PAGE_SHIFT, Hpa, HvaFlag, Kvm, KvmVcpu, MemSlot, SlotFlag, gfn_t, gpa_t, pfn_t, role_t, u64, u8, unlikely,
)

cdef MemSlot *search_memslots(Kvm *kvm, int as_id, gfn_t gfn) noexcept nogil


cdef inline MemSlot *gfn_to_memslot(Kvm *kvm, int as_id, gfn_t gfn) noexcept nogil:
    """The slot that holds `gfn`, invalid (vanishing) ones included, or NULL. Most look-ups hit the last one's slot."""
    cdef MemSlot *slot = kvm.last_slot[as_id]
    if unlikely(slot == NULL or gfn - slot.base_gfn >= slot.npages):
        return search_memslots(kvm, as_id, gfn) if kvm.nslots[as_id] else NULL
    return slot


cdef inline int slot_shift(int level) noexcept nogil:
    """Address bits, in pages, that one entry of `level` covers."""
    return LEVEL_BITS * (level - 1)


cdef inline u64 *gfn_to_rmap(MemSlot *slot, gfn_t gfn, int level) noexcept nogil:
    """The rmap head of the sptes of `level` that map `gfn`."""
    return &slot.rmap[level - 1][(gfn >> slot_shift(level)) - (slot.base_gfn >> slot_shift(level))]


cdef MemSlot *memslot_for_role(Kvm *kvm, role_t role, gfn_t gfn) noexcept nogil
cdef bint is_visible_gfn(Kvm *kvm, int as_id, gfn_t gfn) noexcept nogil
cdef int *lpage_info(MemSlot *slot, gfn_t gfn, int level) noexcept nogil
cdef void update_disallow_lpage(Kvm *kvm, MemSlot *slot, gfn_t gfn, int count) noexcept nogil
cdef void update_gfn_track(Kvm *kvm, MemSlot *slot, gfn_t gfn, int count) noexcept nogil
cdef MemSlot *slot_by_id(Kvm *kvm, int as_id, int id) noexcept nogil
cdef MemSlot *free_slot(Kvm *kvm, int as_id) noexcept nogil
cdef bint prepare_slot(Kvm *kvm, MemSlot *slot) noexcept nogil
cdef void install_slot(Kvm *kvm, MemSlot *prepared) noexcept nogil
cdef void release_slot(Kvm *kvm, MemSlot *slot) noexcept nogil
cdef void kasan_fence(MemSlot *slot) noexcept nogil


cdef inline u64 first_hva_entry(u64 page) noexcept nogil:
    """A user page at first: the frame of the high zone that has its number, of 4K, writable."""
    return (Hpa.HIGH_ZONE + (page << PAGE_SHIFT)) | HvaFlag.HVA_PRESENT | HvaFlag.HVA_WRITABLE | 1 << HvaFlag.HVA_LEVEL_SHIFT


cdef inline u64 hva_entry(Kvm *kvm, u64 page) noexcept nogil:
    """The host's mapping of a user page: pfn << 12 | HvaFlag. Written down is what differs from the first one, so that memory
    which never changes costs none."""
    return kvm.hva_map[page] ^ first_hva_entry(page)


cdef inline void set_hva_entry(Kvm *kvm, u64 page, u64 entry) noexcept nogil:
    kvm.hva_map[page] = entry ^ first_hva_entry(page)


cdef inline u64 host_mapping(Kvm *kvm, MemSlot *slot, gfn_t gfn) noexcept nogil:
    """The host's mapping of `gfn` as it stands: pfn << 12 | HvaFlag, 0 when nothing is mapped."""
    return hva_entry(kvm, slot.hva + gfn - slot.base_gfn)


cdef inline bint is_write_tracked(Kvm *kvm, gfn_t gfn) noexcept nogil:
    """Tracked in any address space: a table shadowed through SMM's slots must not be written through the others'.

    In the kernel: kvm_slot_page_track_is_active.
    """
    cdef int as_id
    cdef MemSlot *slot
    for as_id in range(ADDRESS_SPACES):
        slot = gfn_to_memslot(kvm, as_id, gfn)
        if slot != NULL and slot.gfn_write_track[gfn - slot.base_gfn]:
            return True
    return False


cdef inline void mark_page_dirty(MemSlot *slot, gfn_t gfn) noexcept nogil:
    """Set the gfn's bit in the dirty log, if the slot keeps one."""
    cdef u64 index
    if slot != NULL and slot.flags & SlotFlag.SLOT_LOG_DIRTY:
        index = gfn - slot.base_gfn
        slot.dirty_bitmap[index >> 6] |= <u64>1 << (index & 63)
