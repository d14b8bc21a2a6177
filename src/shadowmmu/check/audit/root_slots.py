# SPDX-License-Identifier: GPL-2.0-only
"""I5, I11 and I18: what the root slots of all MMUs hold, the current root and those kept for later."""

import cython
from cython.cimports.shadowmmu.engine.arena.state import (
    PREV_ROOTS,
    Hpa,
    KvmMmuPtr,
    KvmPtr,
    RootInfoPtr,
    ShadowPagePtr,
    dummy_root,
    to_shadow_page,
    u64,
)


def validate_roots(auditor: Auditor) -> None:
    """I5: root_count is the number of root slots that hold the page. I18: kept roots are ordinary pages, each CR3 once."""
    kvm: KvmPtr = auditor.kvm
    v: cython.int
    for v in range(kvm.nvcpus):
        validate_slots(auditor, cython.address(kvm.vcpus[v].root_mmu))
        validate_slots(auditor, cython.address(kvm.vcpus[v].guest_mmu))
    i: u64
    for i in range(auditor.nlive):
        sp: ShadowPagePtr = auditor.live[i]
        held: cython.int = auditor.held[sp - kvm.pages]
        if sp.special and sp.root_count:
            auditor.say("I5", f"special {auditor.page_name(sp)} has a root_count")
        elif not sp.special and sp.root_count != held:
            auditor.say("I5", f"{auditor.page_name(sp)} has root_count {sp.root_count}, {held} root slots hold it")


@cython.cfunc
def validate_slots(auditor: Auditor, mmu: KvmMmuPtr) -> object:
    """I18: the root slots of one MMU."""
    i: cython.int
    j: cython.int
    hold_current(auditor, mmu)
    for i in range(PREV_ROOTS):
        kept: RootInfoPtr = cython.address(mmu.prev_roots[i])
        if kept.hpa == Hpa.INVALID_PAGE:
            continue
        hold_kept(auditor, kept.hpa)
        # One table under two PCIDs is two roots on one page.
        twice: cython.bint = kept.pgd == mmu.root.pgd and kept.hpa == mmu.root.hpa
        for j in range(i):
            if kept.pgd == mmu.prev_roots[j].pgd and kept.hpa == mmu.prev_roots[j].hpa:
                twice = True
        if twice:
            auditor.say("I18", f"root {kept.hpa:#x} of CR3 {kept.pgd:#x} is cached twice")
    return None


@cython.cfunc
def hold_current(auditor: Auditor, mmu: KvmMmuPtr) -> object:
    """I18: the current root holds a page, or if it is a bare table the four level-2 pages below it; the dummy root holds nothing."""
    if mmu.root.hpa == Hpa.INVALID_PAGE or mmu.root.hpa == dummy_root(auditor.kvm):
        return None
    sp: ShadowPagePtr = to_shadow_page(auditor.kvm, mmu.root.hpa)
    if sp != cython.NULL:
        return None if sp.live and sp.special else hold(auditor, sp)
    if auditor.kvm.root_ops.walk_start == cython.NULL or mmu.pae_root == cython.NULL:
        auditor.say("I18", f"root slot holds {mmu.root.hpa:#x}, which is no shadow page")
        return None
    i: cython.int
    for i in range(4):
        if mmu.pae_root[i]:
            hold(auditor, to_shadow_page(auditor.kvm, mmu.pae_root[i]))
    return None


@cython.cfunc
def hold_kept(auditor: Auditor, hpa: u64) -> object:
    """I18: a root that is kept for later is a page, and no special one."""
    sp: ShadowPagePtr = to_shadow_page(auditor.kvm, hpa)
    if sp == cython.NULL:
        auditor.say("I18", f"root slot holds {hpa:#x}, which is no shadow page")
    elif sp.live and sp.special:
        auditor.say("I18", f"special {auditor.page_name(sp)} is kept in prev_roots")
    else:
        hold(auditor, sp)
    return None


@cython.cfunc
def hold(auditor: Auditor, sp: ShadowPagePtr) -> object:
    """I11: a root slot, or a PDPTE of a bare root, leads to a page that exists, and counts for it."""
    if sp == cython.NULL or not sp.live:
        auditor.say("I11", "a root slot or a PDPTE of a bare root leads to a page that is freed")
    else:
        auditor.held[sp - auditor.kvm.pages] += 1
    return None
