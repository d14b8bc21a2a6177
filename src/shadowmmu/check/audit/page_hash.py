# SPDX-License-Identifier: GPL-2.0-only
"""I3: the hash in which pages are found by gfn and role."""

import cython
from cython.cimports.shadowmmu.engine.arena.state import KvmPtr, ShadowPagePtr, u64
from cython.cimports.shadowmmu.engine.pages.pages import hash_bucket, is_obsolete


def validate_hash(auditor: Auditor) -> None:
    """I3: every page but special ones is once in its gfn's bucket."""
    i: u64
    for i in range(auditor.nlive):
        if not auditor.live[i].special:
            validate_bucket(auditor, auditor.live[i])


@cython.cfunc
def validate_bucket(auditor: Auditor, sp: ShadowPagePtr) -> object:
    """I3: the bucket of this page has it once, no valid one like it, and no page that must not be there."""
    kvm: KvmPtr = auditor.kvm
    times: cython.int = 0
    steps: u64 = 0
    other: ShadowPagePtr = kvm.hash[hash_bucket(sp.gfn)]
    while other != cython.NULL and steps <= kvm.npages_pool:
        steps += 1
        if other == sp:
            times += 1
        elif other.special or not other.live:
            auditor.say("I3", f"{auditor.page_name(other)} is in the hash and must not be")
        elif other.gfn == sp.gfn and other.role == sp.role and not is_obsolete(kvm, other) and not is_obsolete(kvm, sp):
            auditor.say("I3", f"{auditor.page_name(sp)} exists twice")
        other = other.hash_next
    if times != 1:
        auditor.say("I3", f"{auditor.page_name(sp)} is {times} times in its hash bucket")
    return None
