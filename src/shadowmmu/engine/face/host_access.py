# SPDX-License-Identifier: GPL-2.0-only
"""Host physical memory as hardware reaches it: guest memory for any store, shadow tables only to set A and D."""

import cython
from cython.cimports.shadowmmu.engine.arena.spte import is_present
from cython.cimports.shadowmmu.engine.arena.state import PAGE_SHIFT, PAGE_SIZE, Hpa, KvmPtr, frame_index, p_u8, p_u64, pfn_memory, u64


def frame_memory(kvm: KvmPtr, hpa: u64, size: u64) -> p_u8:
    """The byte at `hpa`, if the `size` bytes from there lie in one frame that exists; else NULL."""
    pfn: u64 = hpa >> PAGE_SHIFT
    good: cython.bint = pfn < kvm.low_frames or 0 <= pfn - (Hpa.HIGH_ZONE >> PAGE_SHIFT) < kvm.high_frames
    if not good or size > PAGE_SIZE or (hpa & (PAGE_SIZE - 1)) + size > PAGE_SIZE:
        return cython.NULL
    return pfn_memory(kvm, pfn) + (hpa & (PAGE_SIZE - 1))


def is_guest_frame(kvm: KvmPtr, at: p_u8) -> cython.bint:
    """The frame can back guest memory. The shared zeroes behind user memory are never mapped writable."""
    number: u64 = frame_index(kvm, at) - kvm.user_base
    return number < kvm.user_frames and number != kvm.nhva


def only_marks(kvm: KvmPtr, at: p_u8, data: p_u8, size: u64) -> cython.bint:
    """The store does no more than set A or D in present entries, as the CPU's walk of a shadow table does."""
    marks: u64 = kvm.masks.accessed | kvm.masks.dirty
    i: u64
    for i in range(size):
        change: cython.uint = at[i] ^ data[i]
        if not change:
            continue
        byte: u64 = cython.cast(u64, at + i) & 7
        entry: u64 = cython.cast(p_u64, at + i - byte)[0]
        if not is_present(entry) or change & at[i] or change & ~(marks >> 8 * byte):
            return False
    return True
