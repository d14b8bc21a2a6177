"""The MMU notifier: the host changes its own mapping of guest memory, so every shadow of it must go first.

Ranges are host user pages [start, end).
"""

import cython
from cython.cimports.shadowmmu.engine.memslots import drop_host_page, gfn_to_rmap
from cython.cimports.shadowmmu.engine.rmap import zap_all_rmap_sptes
from cython.cimports.shadowmmu.engine.state import ADDRESS_SPACES, MAX_SLOTS, HvaFlag, Kvm, MemSlot, gfn_t, u64
from cython.cimports.shadowmmu.engine.tlb import flush_remote_tlbs


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unmap_in_slot(kvm: cython.pointer(Kvm), slot: cython.pointer(MemSlot), start: u64, end: u64) -> cython.bint:
    """Zap every mapping, of every size, of the part of the range that lies in the slot."""
    first: u64 = start if start > slot.hva else slot.hva
    last: u64 = end if end < slot.hva + slot.npages else slot.hva + slot.npages
    any_zapped: cython.bint = False
    page: u64
    level: cython.int
    for page in range(first, last):
        gfn: gfn_t = slot.base_gfn + page - slot.hva
        for level in range(1, 4):
            if zap_all_rmap_sptes(kvm, gfn_to_rmap(slot, gfn, level)):
                any_zapped = True
    return any_zapped


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unmap_hva_range(kvm: cython.pointer(Kvm), start: u64, end: u64) -> cython.void:
    """invalidate_range_start and _end in one: faults that looked the page up before must retry (mmu_invalidate_seq)."""
    flush: cython.bint = False
    as_id: cython.int
    i: cython.int
    for as_id in range(ADDRESS_SPACES):
        for i in range(MAX_SLOTS):
            slot: cython.pointer(MemSlot) = cython.address(kvm.slots[as_id][i])
            if slot.npages and start < slot.hva + slot.npages and slot.hva < end and unmap_in_slot(kvm, slot, start, end):
                flush = True
    kvm.mmu_invalidate_seq += 1
    if flush:
        flush_remote_tlbs(kvm)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def discard_hva_range(kvm: cython.pointer(Kvm), start: u64, end: u64) -> cython.void:
    """madvise(MADV_DONTNEED): the pages are given back, the next touch finds zeroes."""
    unmap_hva_range(kvm, start, end)
    page: u64
    for page in range(start, end):
        drop_host_page(kvm, page)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def protect_hva_range(kvm: cython.pointer(Kvm), start: u64, end: u64, writable: cython.bint) -> cython.void:
    """mprotect: the host's right to write the pages changes."""
    unmap_hva_range(kvm, start, end)
    page: u64
    for page in range(start, end):
        if writable:
            kvm.hva_map[page] |= HvaFlag.HVA_WRITABLE
        else:
            kvm.hva_map[page] &= ~cython.cast(u64, HvaFlag.HVA_WRITABLE)
