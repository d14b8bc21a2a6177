# SPDX-License-Identifier: GPL-2.0-only
"""I14: every header and every rmap descriptor is in use or free, once. And what the engine itself warned of."""

import cython
from cython.cimports.shadowmmu.engine.arena.state import KvmPtr, ListHeadPtr, ShadowPagePtr, u64

from shadowmmu.engine.arena import state as engine_state


def validate_warnings(auditor: Auditor) -> None:
    """What the kernel would WARN or BUG about has not happened."""
    bugs: u64 = auditor.kvm.bugs
    if bugs:
        for bug in engine_state.Bug:
            if bugs >> int(bug) & 1:
                auditor.say("WARN", f"{bug.name} was hit")


def validate_headers(auditor: Auditor) -> None:
    """I14, of headers: live, or on the free list. Zapped pages do not wait to be freed when the zapping is over."""
    kvm: KvmPtr = auditor.kvm
    free: u64 = 0
    entry: ListHeadPtr = kvm.free_pages.next
    while entry != cython.address(kvm.free_pages) and free <= kvm.npages_pool:
        sp: ShadowPagePtr = cython.cast(ShadowPagePtr, entry)
        if sp.live:
            auditor.say("I14", f"{auditor.page_name(sp)} is live and on the free list")
        free += 1
        entry = entry.next
    free += kvm.npages_pool - kvm.npages_carved  # never used
    if auditor.nlive + free != kvm.npages_pool or free != kvm.nfree_pages:
        auditor.say("I14", f"{auditor.nlive} live and {free} free headers of {kvm.npages_pool}, {kvm.nfree_pages} said to be free")
    if kvm.zapped_obsolete_pages.next != cython.address(kvm.zapped_obsolete_pages):
        auditor.say("I14", "zapped pages wait to be freed although the zapping is over")


def validate_descriptors(auditor: Auditor) -> None:
    """I14, of rmap descriptors: those that reverse lists were seen to have and the free ones add up.

    The lists' own are no list's twice, so that one freed while in use, freed twice or lost shows in the sum; the free
    list itself, thousands long, need not be walked.
    """
    used: u64 = auditor.ndescs
    if used + auditor.kvm.nfree_descs != auditor.kvm.ndesc:
        auditor.say("I14", f"{used} rmap descriptors in use and {auditor.kvm.nfree_descs} said to be free, of {auditor.kvm.ndesc}")
