# SPDX-License-Identifier: GPL-2.0-only
"""Reverse-map lists: which sptes map a gfn, and which sptes point to a shadow page (parent_ptes).

A list head is one word: 0 empty, an spte pointer (bit 0 clear) for a single entry, else a descriptor
chain (bit 0 set), each descriptor holding up to 14 entries.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.kasan import kasan_poison, kasan_unpoison
from cython.cimports.shadowmmu.engine.arena.state import PTE_LIST_EXT, Bug, KvmPtr, PteListDesc, PteListDescPtr, p_spte, p_u64, u64, warn


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def desc_of(head: u64) -> PteListDescPtr:
    return cython.cast(PteListDescPtr, head & ~cython.cast(u64, 1))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def alloc_desc(kvm: KvmPtr) -> PteListDescPtr:
    """A descriptor from the pool; the top-up at the start of each fault keeps enough of them."""
    if not kvm.nfree_descs:
        warn(kvm, Bug.BUG_OUT_OF_DESCS)
        return cython.NULL
    kvm.nfree_descs -= 1
    desc: PteListDescPtr = kvm.free_descs
    if desc == cython.NULL:
        desc = cython.address(kvm.descs[kvm.ndesc_carved])
        kvm.ndesc_carved += 1
        kasan_unpoison(desc, cython.sizeof(PteListDesc))
    else:
        kvm.free_descs = desc.more
        kasan_unpoison(desc.sptes, cython.sizeof(desc.sptes))
    desc.more = cython.NULL
    desc.spte_count = 0
    return desc


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free_desc(kvm: KvmPtr, desc: PteListDescPtr) -> cython.void:
    """mmu_free_pte_list_desc: back to the pool."""
    desc.spte_count = 0
    desc.more = kvm.free_descs
    kvm.free_descs = desc
    kvm.nfree_descs += 1
    kasan_poison(desc.sptes, cython.sizeof(desc.sptes))


def pte_list_add(kvm: KvmPtr, sptep: p_spte, head: p_u64) -> u64:
    """Add an entry; returns how many the list held before, as far as it was walked."""
    if not head[0]:
        head[0] = cython.cast(u64, sptep)
        return 0
    desc: PteListDescPtr
    if not head[0] & 1:
        desc = alloc_desc(kvm)
        if desc == cython.NULL:
            return 0
        desc.sptes[0] = cython.cast(p_spte, head[0])
        desc.sptes[1] = sptep
        desc.spte_count = 2
        head[0] = cython.cast(u64, desc) | 1
        return 1
    count: u64 = 0
    desc = desc_of(head[0])
    while desc.spte_count == PTE_LIST_EXT:
        count += PTE_LIST_EXT
        if desc.more == cython.NULL:
            desc.more = alloc_desc(kvm)
            if desc.more == cython.NULL:
                return count
        desc = desc.more
    count += desc.spte_count
    desc.sptes[desc.spte_count] = sptep
    desc.spte_count += 1
    return count


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def remove_from_desc(
    kvm: KvmPtr,
    head: p_u64,
    desc: PteListDescPtr,
    i: u64,
    prev: PteListDescPtr,
) -> cython.void:
    """pte_list_desc_remove_entry: fill the hole with the last entry of the same descriptor; an empty descriptor leaves the chain."""
    desc.spte_count -= 1
    desc.sptes[i] = desc.sptes[desc.spte_count]
    if desc.spte_count:
        return
    if prev != cython.NULL:
        prev.more = desc.more
    elif desc.more == cython.NULL:
        head[0] = 0
    else:
        head[0] = cython.cast(u64, desc.more) | 1
    free_desc(kvm, desc)


def pte_list_remove(kvm: KvmPtr, sptep: p_spte, head: p_u64) -> cython.void:
    """Remove an entry that must be there: a missing one is the kernel's BUG."""
    if not head[0] & 1:
        if head[0] != cython.cast(u64, sptep):
            warn(kvm, Bug.BUG_RMAP_ENTRY_MISSING)
            return
        head[0] = 0
        return
    prev: PteListDescPtr = cython.NULL
    desc: PteListDescPtr = desc_of(head[0])
    while desc != cython.NULL:
        i: u64
        for i in range(desc.spte_count):
            if desc.sptes[i] == sptep:
                remove_from_desc(kvm, head, desc, i, prev)
                return
        prev = desc
        desc = desc.more
    warn(kvm, Bug.BUG_RMAP_ENTRY_MISSING)


def pte_list_count(head: u64) -> u64:
    if not head & 1:
        return 1 if head else 0
    count: u64 = 0
    desc: PteListDescPtr = desc_of(head)
    while desc != cython.NULL:
        count += desc.spte_count
        desc = desc.more
    return count


def pte_list_first(head: u64, it: PteListIterPtr) -> p_spte:
    """rmap_get_first: begin a walk over the list; NULL at the end. Removing an entry ends the walk's validity."""
    it.desc = cython.NULL
    it.pos = 0
    if not head & 1:
        return cython.cast(p_spte, head)
    it.desc = desc_of(head)
    return it.desc.sptes[0]


def pte_list_next(it: PteListIterPtr) -> p_spte:
    """rmap_get_next: the next entry, NULL behind the last."""
    if it.desc == cython.NULL:
        return cython.NULL
    it.pos += 1
    if it.pos == it.desc.spte_count:
        it.desc = it.desc.more
        it.pos = 0
        if it.desc == cython.NULL:
            return cython.NULL
    return it.desc.sptes[it.pos]
