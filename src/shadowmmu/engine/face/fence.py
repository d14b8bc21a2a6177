# SPDX-License-Identifier: GPL-2.0-only
"""The whole arena as AddressSanitizer is to see it: for `make sanitize`, in every other build there is nothing to do.

The engine's allocators poison what they are given back and free what they hand out. Here the same is said of an arena
that has just been made, or copied as a whole: only what is in use may be touched.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.kasan import KASAN_REDZONE, kasan_poison, kasan_unpoison
from cython.cimports.shadowmmu.engine.arena.state import (
    ADDRESS_SPACES,
    ENTRIES,
    HASH_BITS,
    MAX_SLOTS,
    PAGE_SHIFT,
    PAGE_SIZE,
    HashBucket,
    Kvm,
    KvmPtr,
    KvmVcpu,
    MemSlotPtr,
    PteListDesc,
    PteListDescPtr,
    ShadowPage,
    p_u8,
    u64,
)
from cython.cimports.shadowmmu.engine.memory.memslots import kasan_fence


def fence_arena(kvm: KvmPtr) -> cython.void:
    """Poison what lies between the pools, and in them what is free."""
    if KASAN_REDZONE:
        kasan_poison(cython.cast(p_u8, kvm) + cython.sizeof(Kvm), kvm.arena_size - cython.sizeof(Kvm))
        open_pools(kvm)
        fence_pages(kvm)
        fence_descs(kvm)
        fence_slots(kvm)


def open_arena(kvm: KvmPtr) -> cython.void:
    """All of it may be touched: it is to be copied as a whole, or to go."""
    kasan_unpoison(kvm, kvm.arena_size)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def open_pools(kvm: KvmPtr) -> cython.void:
    """The pools whose objects are all in use; of shadow pages and descriptors those that were ever used, of the former their headers."""
    frames: u64 = kvm.low_frames + kvm.high_frames
    kasan_unpoison(kvm.vcpus, kvm.nvcpus * cython.sizeof(KvmVcpu))
    kasan_unpoison(kvm.hash, cython.cast(u64, cython.sizeof(HashBucket)) << HASH_BITS)
    kasan_unpoison(kvm.index, kvm.npages_pool * 8)
    kasan_unpoison(kvm.pages, kvm.npages_carved * cython.sizeof(ShadowPage))
    kasan_unpoison(kvm.descs, kvm.ndesc_carved * cython.sizeof(PteListDesc))
    kasan_unpoison(kvm.frame_private, frames * 8)
    kasan_unpoison(kvm.hva_map, kvm.nhva * 8)
    kasan_unpoison(kvm.user_free, kvm.user_frames * 4)
    kasan_unpoison(kvm.empty_table, PAGE_SIZE)
    kasan_unpoison(kvm.frames, frames * PAGE_SIZE)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fence_pages(kvm: KvmPtr) -> cython.void:
    """Tables of free shadow pages, and translations of those and of direct ones."""
    i: u64
    kasan_poison(kvm.frames + ((kvm.table_base + kvm.npages_carved) << PAGE_SHIFT), (kvm.npages_pool - kvm.npages_carved) << PAGE_SHIFT)
    for i in range(kvm.npages_carved):
        if not kvm.pages[i].live:
            kasan_poison(kvm.frames + ((kvm.table_base + i) << PAGE_SHIFT), PAGE_SIZE)
        elif kvm.pages[i].translation != cython.NULL:
            kasan_unpoison(kvm.translations + i * ENTRIES, PAGE_SIZE)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fence_descs(kvm: KvmPtr) -> cython.void:
    desc: PteListDescPtr = kvm.free_descs
    while desc != cython.NULL:
        kasan_poison(desc.sptes, cython.sizeof(desc.sptes))
        desc = desc.more


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fence_slots(kvm: KvmPtr) -> cython.void:
    """What memslots hold of the metadata, but for what lies between their arrays."""
    as_id: cython.int
    i: cython.int
    for as_id in range(ADDRESS_SPACES):
        for i in range(MAX_SLOTS):
            slot: MemSlotPtr = cython.address(kvm.slots[as_id][i])
            if slot.npages:
                kasan_unpoison(kvm.meta + slot.meta_at, slot.meta_size)
                kasan_fence(slot)
