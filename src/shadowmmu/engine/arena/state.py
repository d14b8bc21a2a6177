# SPDX-License-Identifier: GPL-2.0-only
"""The arena: one flat block of memory that holds everything a VM is.

The structs are in ``state.pxd``. The block lies at a fixed address for the life of the VM, pointers in it
stay valid when its bytes are copied out and back, so a whole state is saved, compared and restored with one
memcpy. Nothing is allocated after `create`.

Host physical memory (`Kvm.frames`) has two zones. The low zone, below 4 GiB, holds only the `pae_root` pages,
because a CPU in PAE mode has a 32-bit CR3. Guest memory and every other shadow table lie above 4 GiB, so that
a root in the wrong zone cannot work by luck.

Inline in the .pxd, since they run in every fault: `frame_index`, `frame_pfn`, `pfn_memory`, `host_pa`,
`to_shadow_page`, `sptep_to_sp`, `spte_index`, `pages_per_hpage`, `dummy_root`, `warn`.
"""

import cython
from cython.cimports.libc.string import memcpy
from cython.cimports.posix.mman import MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap
from cython.cimports.shadowmmu.engine.arena.kasan import KASAN_REDZONE, kasan_unpoison


def list_init(head: ListHeadPtr) -> cython.void:
    head.next = head
    head.prev = head


def list_add(entry: ListHeadPtr, head: ListHeadPtr) -> cython.void:
    """Insert `entry` first."""
    entry.next = head.next
    entry.prev = head
    head.next.prev = entry
    head.next = entry


def list_add_tail(entry: ListHeadPtr, head: ListHeadPtr) -> cython.void:
    """Insert `entry` last."""
    list_add(entry, head.prev)


def list_del(entry: ListHeadPtr) -> cython.void:
    entry.prev.next = entry.next
    entry.next.prev = entry.prev
    entry.next = cython.NULL
    entry.prev = cython.NULL


def carve(at: p_u64, count: u64, size: u64, align: u64) -> u64:
    """Reserve `count` objects of `size` bytes behind `*at`; returns their offset in bytes."""
    start: u64 = (at[0] + KASAN_REDZONE + align - 1) & ~(align - 1)
    at[0] = start + count * size
    return start


def create(config: KvmPtr) -> KvmPtr:
    """Map an arena for the VM that `config` describes (its constants only) and lay it out. NULL: no memory."""
    at: u64 = cython.sizeof(Kvm)
    frames: u64 = config.low_frames + config.high_frames
    vcpus: u64 = carve(cython.address(at), config.nvcpus, cython.sizeof(KvmVcpu), 64)
    buckets: u64 = carve(cython.address(at), cython.cast(u64, 1) << HASH_BITS, cython.sizeof(HashBucket), 64)
    index: u64 = carve(cython.address(at), config.npages_pool, 8, 64)
    pages: u64 = carve(cython.address(at), config.npages_pool, cython.sizeof(ShadowPage), 64)
    descs: u64 = carve(cython.address(at), config.ndesc, cython.sizeof(PteListDesc), 64)
    private: u64 = carve(cython.address(at), frames, 8, 64)
    hva: u64 = carve(cython.address(at), config.nhva, 8, 64)
    ring: u64 = carve(cython.address(at), config.user_frames, 4, 64)
    meta: u64 = carve(cython.address(at), config.meta_size, 1, 64)
    translations: u64 = carve(cython.address(at), config.npages_pool, PAGE_SIZE, PAGE_SIZE)
    empty: u64 = carve(cython.address(at), 1, PAGE_SIZE, PAGE_SIZE)
    memory: u64 = carve(cython.address(at), frames, PAGE_SIZE, PAGE_SIZE)
    at += KASAN_REDZONE
    block: cython.p_void = mmap(cython.NULL, at, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if block == MAP_FAILED:
        return cython.NULL
    base: p_u8 = cython.cast(p_u8, block)
    kvm: KvmPtr = cython.cast(KvmPtr, block)
    memcpy(kvm, config, cython.sizeof(Kvm))
    kvm.arena_size = at
    kvm.vcpus = cython.cast(KvmVcpuPtr, base + vcpus)
    kvm.hash = cython.cast(HashBucketPtr, base + buckets)
    kvm.index = cython.cast(cython.pointer(ShadowPagePtr), base + index)
    kvm.pages = cython.cast(ShadowPagePtr, base + pages)
    kvm.descs = cython.cast(PteListDescPtr, base + descs)
    kvm.frame_private = cython.cast(cython.pointer(ShadowPagePtr), base + private)
    kvm.hva_map = cython.cast(p_u64, base + hva)
    kvm.user_free = cython.cast(p_u32, base + ring)
    kvm.meta = base + meta
    kvm.translations = cython.cast(p_u64, base + translations)
    kvm.empty_table = cython.cast(p_spte, base + empty)
    kvm.frames = base + memory
    init_pools(kvm)
    return kvm


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def init_pools(kvm: KvmPtr) -> cython.void:
    """All lists are empty. Free lists too: what was never used is carved off its pool when these run out, so that it costs no memory."""
    list_init(cython.address(kvm.active_mmu_pages))
    list_init(cython.address(kvm.zapped_obsolete_pages))
    list_init(cython.address(kvm.lpage_disallowed_mmu_pages))
    list_init(cython.address(kvm.free_pages))
    kvm.nfree_pages = kvm.npages_pool
    kvm.nfree_descs = kvm.ndesc


def destroy(kvm: KvmPtr) -> cython.void:
    """free_mmu_pages, kvm_mmu_destroy, kvm_mmu_uninit_vm: the arena goes as one block, with all that is in it."""
    kasan_unpoison(kvm, kvm.arena_size)
    munmap(kvm, kvm.arena_size)
