# SPDX-License-Identifier: GPL-2.0-only
"""Where shadow pages are found by gfn: the kernel's hash, and an index beside it that grows.

The kernel's 4,096 buckets hold what it can have in a VM of usual size; a million pages are 244 in each, all to be passed
for one. So pages are looked up in an index whose chains stay about one page long. It has a bucket for each header that was
ever used, and splits one, in turn, when another is (linear hashing): no look-up or fault ever pays for the growth of all.

Both keep the newest page first, so pages of one gfn are met in the kernel's order. Only the kernel's chains tell how many
pages of other gfns a look-up passes, a figure that it keeps the maximum of: `get_page.count_collisions`.

Inline in the .pxd, since they run in every fault: `hash_gfn`, `hash_bucket`, `index_number`, `index_bucket`.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.state import HashBucketPtr, KvmPtr, ShadowPagePtr, u64


def hash_insert(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    """Newest first: the order in which pages of one gfn go unsync."""
    bucket: HashBucketPtr = cython.address(kvm.hash[hash_bucket(sp.gfn)])
    sp.hash_next = bucket.first
    sp.hash_pprev = cython.address(bucket.first)
    if sp.hash_next != cython.NULL:
        sp.hash_next.hash_pprev = cython.address(sp.hash_next)
    bucket.first = sp
    bucket.pages += 1
    index_insert(index_bucket(kvm, sp.gfn), sp)


def hash_remove(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    sp.hash_pprev[0] = sp.hash_next
    if sp.hash_next != cython.NULL:
        sp.hash_next.hash_pprev = sp.hash_pprev
    kvm.hash[hash_bucket(sp.gfn)].pages -= 1
    index_remove(sp)


# --- the index


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def index_insert(place: cython.pointer(ShadowPagePtr), sp: ShadowPagePtr) -> cython.void:
    """Put the page where `place` leads, before what is there."""
    sp.index_next = place[0]
    sp.index_pprev = place
    if sp.index_next != cython.NULL:
        sp.index_next.index_pprev = cython.address(sp.index_next)
    place[0] = sp


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def index_remove(sp: ShadowPagePtr) -> cython.void:
    sp.index_pprev[0] = sp.index_next
    if sp.index_next != cython.NULL:
        sp.index_next.index_pprev = sp.index_pprev


def grow_index(kvm: KvmPtr) -> cython.void:
    """One bucket more: its pages, in their order, leave the one whose number lacks its highest bit."""
    number: u64 = kvm.npages_carved
    if number > kvm.index_mask:
        kvm.index_mask = 2 * kvm.index_mask + 1
    stay: cython.pointer(ShadowPagePtr) = cython.address(kvm.index[number & (kvm.index_mask >> 1)])
    leave: cython.pointer(ShadowPagePtr) = cython.address(kvm.index[number])
    while stay[0] != cython.NULL:
        sp: ShadowPagePtr = stay[0]
        if index_number(kvm, sp.gfn) == number:
            index_remove(sp)
            index_insert(leave, sp)
            leave = cython.address(sp.index_next)
        else:
            stay = cython.address(sp.index_next)
