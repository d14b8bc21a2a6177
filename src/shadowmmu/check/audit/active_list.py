# SPDX-License-Identifier: GPL-2.0-only
"""I4 and I5: the list of active pages, newest first, and the count of pages in use."""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Role
from cython.cimports.shadowmmu.engine.arena.state import KvmPtr, ListHeadPtr, ShadowPagePtr, u64


def validate_active_list(auditor: Auditor) -> None:
    """I4: newest generation first; what is listed may be, and the count of used pages agrees."""
    kvm: KvmPtr = auditor.kvm
    valid: u64 = 0
    steps: u64 = 0
    old: cython.bint = False
    entry: ListHeadPtr = kvm.active_mmu_pages.next
    while entry != cython.address(kvm.active_mmu_pages):
        sp: ShadowPagePtr = cython.cast(ShadowPagePtr, entry)
        steps += 1
        if steps > kvm.npages_pool:
            auditor.say("I4", "the active list has a loop")
            return
        validate_listed(auditor, sp)
        if sp.mmu_valid_gen != kvm.mmu_valid_gen:
            old = True
        elif old:
            auditor.say("I4", f"{auditor.page_name(sp)} of the present generation stands behind an obsolete one")
        valid += not sp.role & Role.INVALID
        entry = entry.next
    validate_used(auditor, valid)


@cython.cfunc
def validate_listed(auditor: Auditor, sp: ShadowPagePtr) -> object:
    """I4, I5, I13: a page of the active list is live, valid and not special."""
    if not sp.live:
        auditor.say("I4", f"{auditor.page_name(sp)} is listed but not live")
    if sp.role & Role.INVALID:
        auditor.say("I5", f"{auditor.page_name(sp)} is invalid and on the active list")
    if sp.special:
        auditor.say("I13", f"special {auditor.page_name(sp)} is on the active list")
    return None


@cython.cfunc
def validate_used(auditor: Auditor, valid: u64) -> object:
    """I4: `valid` pages are on the active list; with the invalid roots, which are on none, they are all but the special ones."""
    kvm: KvmPtr = auditor.kvm
    expected: u64 = 0
    count: u64 = valid
    i: u64
    for i in range(auditor.nlive):
        if not auditor.live[i].special:
            expected += 1
            count += (auditor.live[i].role & Role.INVALID) != 0
    if count != expected or expected != kvm.n_used_mmu_pages:
        auditor.say("I4", f"{expected} pages exist, {count} are listed or invalid roots, {kvm.n_used_mmu_pages} are counted as used")
    return None
