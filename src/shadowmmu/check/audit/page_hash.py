# SPDX-License-Identifier: GPL-2.0-only
"""I3: the hash and the index, in which pages are found by gfn and role."""

import cython
from cython.cimports.shadowmmu.engine.arena.state import HASH_BITS, KvmPtr, ShadowPagePtr, p_u64, u64
from cython.cimports.shadowmmu.engine.pages.page_index import hash_bucket, index_bucket
from cython.cimports.shadowmmu.engine.pages.pages import is_obsolete


def validate_hash(auditor: Auditor) -> None:
    """I3: every page but special ones is once in its gfn's bucket, of the kernel's hash and of the index."""
    hashed: u64 = 0
    i: u64
    for i in range(auditor.nlive):
        if not auditor.live[i].special:
            hashed += 1
            validate_index(auditor, auditor.live[i])
    if auditor.thorough:
        validate_buckets(auditor, hashed)


@cython.cfunc
def validate_buckets(auditor: Auditor, hashed: u64) -> object:
    """I3: the buckets of the kernel's hash have so many pages."""
    buckets: p_u64 = cython.cast(p_u64, auditor.kvm.hash)
    words: u64 = cython.cast(u64, BUCKET_WORDS) << HASH_BITS
    at: u64 = next_used(buckets, 0, words, 0)
    while at < words:
        hashed -= validate_bucket(auditor, at // BUCKET_WORDS)
        at = next_used(buckets, (at // BUCKET_WORDS + 1) * BUCKET_WORDS, words, 0)
    if hashed:
        auditor.say("I3", f"the hash has {cython.cast(cython.longlong, hashed)} pages too few")
    return None


@cython.cfunc
def validate_index(auditor: Auditor, sp: ShadowPagePtr) -> object:
    """I3: the index has this page once, no valid one like it, and none beside it that must not be there."""
    kvm: KvmPtr = auditor.kvm
    times: cython.int = 0
    steps: u64 = 0
    other: ShadowPagePtr = index_bucket(kvm, sp.gfn)[0]
    while other != cython.NULL and steps <= kvm.npages_pool:
        steps += 1
        if other == sp:
            times += 1
        elif other.special or not other.live:
            auditor.say("I3", f"{auditor.page_name(other)} is in the index and must not be")
        elif other.gfn == sp.gfn and other.role == sp.role and not is_obsolete(kvm, other) and not is_obsolete(kvm, sp):
            auditor.say("I3", f"{auditor.page_name(sp)} exists twice")
        other = other.index_next
    if times != 1:
        auditor.say("I3", f"{auditor.page_name(sp)} is {times} times in its bucket of the index")
    return None


@cython.cfunc
@cython.exceptval(-1, check=True)
def validate_bucket(auditor: Auditor, number: u64) -> cython.longlong:
    """I3: a bucket of the kernel's hash has pages that belong there, as many as it says; returns how many."""
    kvm: KvmPtr = auditor.kvm
    steps: u64 = 0
    sp: ShadowPagePtr = kvm.hash[number].first
    while sp != cython.NULL and steps <= kvm.npages_pool:
        steps += 1
        if sp.special or not sp.live or hash_bucket(sp.gfn) != number:
            auditor.say("I3", f"{auditor.page_name(sp)} is in bucket {number:#x} of the hash and must not be")
        sp = sp.hash_next
    if steps != kvm.hash[number].pages:
        auditor.say("I3", f"bucket {number:#x} of the hash has {steps} pages and says {kvm.hash[number].pages}")
    return steps
