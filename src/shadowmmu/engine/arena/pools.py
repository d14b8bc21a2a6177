# SPDX-License-Identifier: GPL-2.0-only
"""How large a VM's arena is, and what its host memory looks like at first."""

import cython
from cython.cimports.shadowmmu.engine.arena.kasan import KASAN_REDZONE
from cython.cimports.shadowmmu.engine.arena.state import ADDRESS_SPACES, ENTRIES, MAX_SLOTS, KvmPtr, u64


def size_pools(config: KvmPtr, memory_mib: u64, user_mib: u64, table_pages: u64) -> cython.void:
    """How many frames, shadow pages and descriptors a VM of this size needs."""
    pages: u64 = memory_mib << 8
    config.nhva = user_mib << 8
    config.user_frames = config.nhva + 64
    least: u64 = pages // 50 if pages // 50 > 64 else 64
    config.npages_pool = table_pages if table_pages else 2 * least + 8 * config.nvcpus + 64
    config.ndesc = config.nhva + 32 * config.npages_pool + 256
    config.low_frames = 2 + 2 * config.nvcpus
    config.user_base = config.low_frames
    config.table_base = config.user_base + config.user_frames
    config.high_frames = config.user_frames + config.npages_pool + 3 * config.nvcpus
    config.meta_size = config.nhva * 32 + (1 << 16) + ADDRESS_SPACES * MAX_SLOTS * 7 * KASAN_REDZONE


def init_host_memory(kvm: KvmPtr) -> cython.void:
    """User memory has its frames (memslots.hva_entry), the next one holds the shared zeroes, what is left is the ring of spare frames.

    A shadow table begins with nothing in it, which is not zero on every kernel.
    """
    first: u64 = kvm.nhva + 1
    i: u64
    for i in range(first, kvm.user_frames):
        kvm.user_free[i - first] = kvm.user_base + i
    kvm.user_free_count = kvm.user_frames - first
    kvm.memslot_gen[1] = 1
    entry: cython.int
    for entry in range(ENTRIES):
        kvm.empty_table[entry] = kvm.masks.nonpresent
