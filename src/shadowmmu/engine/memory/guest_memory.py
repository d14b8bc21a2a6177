# SPDX-License-Identifier: GPL-2.0-only
"""Guest physical memory as the hypervisor itself reads and writes it.

Inline in the .pxd, since it runs in every fault: `guest_bytes`.
"""

import cython
from cython.cimports.libc.string import memcpy
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    PAGE_SIZE,
    HvaFlag,
    KvmPtr,
    MemSlotPtr,
    SlotFlag,
    gpa_t,
    p_u8,
    pfn_memory,
    u64,
)
from cython.cimports.shadowmmu.engine.memory.host_memory import fault_in_host_page, host_writable
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot, mark_page_dirty


def fault_in_guest_bytes(kvm: KvmPtr, slot: MemSlotPtr, gpa: gpa_t, write: cython.bint) -> p_u8:
    """`guest_bytes` where slot or host have something to say about it."""
    if slot.flags & SlotFlag.SLOT_INVALID or (write and slot.flags & SlotFlag.SLOT_READONLY):
        return cython.NULL
    entry: u64 = fault_in_host_page(kvm, slot.hva + (gpa >> PAGE_SHIFT) - slot.base_gfn, write)
    if not entry & HvaFlag.HVA_PRESENT or (write and not host_writable(entry)):
        return cython.NULL
    return pfn_memory(kvm, entry >> PAGE_SHIFT) + (gpa & (PAGE_SIZE - 1))


def read_guest(kvm: KvmPtr, as_id: cython.int, gpa: gpa_t, into: cython.p_void, size: u64) -> cython.bint:
    """Copy `size` bytes that lie in one page. False: no memory there."""
    at: p_u8 = guest_bytes(kvm, as_id, gpa, False)
    if at == cython.NULL:
        return False
    memcpy(into, at, size)
    return True


def write_guest(kvm: KvmPtr, as_id: cython.int, gpa: gpa_t, data: cython.p_void, size: u64) -> cython.bint:
    """Store `size` bytes that lie in one page and log the page dirty. False: no memory there, or not writable."""
    at: p_u8 = guest_bytes(kvm, as_id, gpa, True)
    if at == cython.NULL:
        return False
    memcpy(at, data, size)
    mark_page_dirty(gfn_to_memslot(kvm, as_id, gpa >> PAGE_SHIFT), gpa >> PAGE_SHIFT)
    return True
