# SPDX-License-Identifier: GPL-2.0-only
"""I13: special pages form one chain below each special root, in their own vCPU, with no entry beyond their reach."""

import cython
from cython.cimports.shadowmmu.engine.arena.role import role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    ENTRIES,
    Hpa,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    ShadowPagePtr,
    host_pa,
    sptep_to_sp,
    to_shadow_page,
    u64,
)
from cython.cimports.shadowmmu.x86.pte import Pte


def validate_special_pages(auditor: Auditor) -> None:
    """I13: each special page of a root, and that there are no others."""
    kvm: KvmPtr = auditor.kvm
    v: cython.int
    for v in range(kvm.nvcpus):
        validate_mmu(auditor, cython.address(kvm.vcpus[v].root_mmu), v)
        validate_mmu(auditor, cython.address(kvm.vcpus[v].guest_mmu), v)
    i: u64
    for i in range(auditor.nlive):
        sp: ShadowPagePtr = auditor.live[i]
        if sp.special and not belongs(kvm, sp):
            auditor.say("I13", f"special {auditor.page_name(sp)} belongs to no root of its vCPU")


@cython.cfunc
def validate_mmu(auditor: Auditor, mmu: KvmMmuPtr, vcpu: cython.int) -> object:
    """I13: what one MMU has of them."""
    validate_chain(auditor, mmu, vcpu)
    return validate_pae_root(auditor, mmu)


@cython.cfunc
@cython.exceptval(check=False)
def first_special(kvm: KvmPtr, mmu: KvmMmuPtr) -> ShadowPagePtr:
    """The root, if it is special, or NULL."""
    if mmu.root.hpa == Hpa.INVALID_PAGE:
        return cython.NULL
    sp: ShadowPagePtr = to_shadow_page(kvm, mmu.root.hpa)
    return sp if sp != cython.NULL and sp.special else cython.NULL


@cython.cfunc
@cython.exceptval(check=False)
def next_special(kvm: KvmPtr, sp: ShadowPagePtr) -> ShadowPagePtr:
    """The special page below a special page, or NULL: entry 0 leads there, down to level 3."""
    if role_level(sp.role) <= 3 or not is_present(sp.spt[0]):
        return cython.NULL
    child: ShadowPagePtr = to_shadow_page(kvm, sp.spt[0])
    return child if child != cython.NULL and child.special else cython.NULL


@cython.cfunc
@cython.exceptval(check=False)
def is_reached(kvm: KvmPtr, mmu: KvmMmuPtr, sp: ShadowPagePtr) -> cython.bint:
    """The page is in the chain of this MMU's root."""
    link: ShadowPagePtr = first_special(kvm, mmu)
    while link != cython.NULL and link != sp:
        link = next_special(kvm, link)
    return link != cython.NULL


@cython.cfunc
@cython.exceptval(check=False)
def belongs(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.bint:
    """The special page is in a chain of its own vCPU."""
    if not 0 <= sp.owner < kvm.nvcpus:
        return False
    vcpu: KvmVcpuPtr = cython.address(kvm.vcpus[sp.owner])
    return is_reached(kvm, cython.address(vcpu.root_mmu), sp) or is_reached(kvm, cython.address(vcpu.guest_mmu), sp)


@cython.cfunc
def validate_chain(auditor: Auditor, mmu: KvmMmuPtr, vcpu: cython.int) -> object:
    """I13: the special pages of one root."""
    sp: ShadowPagePtr = first_special(auditor.kvm, mmu)
    top: cython.int = role_level(sp.role) if sp != cython.NULL else 0
    while sp != cython.NULL:
        validate_special(auditor, sp, vcpu, top)
        validate_reach(auditor, sp, top)
        sp = next_special(auditor.kvm, sp)
    return None


@cython.cfunc
def validate_pae_root(auditor: Auditor, mmu: KvmMmuPtr) -> object:
    """I13: the frame of pae_root points to the special page whose table it is now, and to no other (H7)."""
    if mmu.pae_root == cython.NULL:
        return None
    sp: ShadowPagePtr = sptep_to_sp(auditor.kvm, mmu.pae_root)
    if sp != cython.NULL and (not sp.live or sp.spt != mmu.pae_root):
        auditor.say("I13", f"the frame of pae_root points to {auditor.page_name(sp) if sp.live else 'a freed page'}, whose table it is not")
    return None


@cython.cfunc
def validate_special(auditor: Auditor, sp: ShadowPagePtr, vcpu: cython.int, top: cython.int) -> object:
    """I13: its owner, its fields, its frame; below 4 GiB if hardware walks three levels (`top`), above if more."""
    kvm: KvmPtr = auditor.kvm
    if sp.owner != vcpu:
        auditor.say("I13", f"special {auditor.page_name(sp)} of vCPU {sp.owner} is in a root of vCPU {vcpu}")
    if role_level(sp.role) < 3 or sp.gfn or sp.translation != cython.NULL or sp.unsync:
        auditor.say("I13", f"special {auditor.page_name(sp)} has a level, gfn or state that no special page has")
    if sptep_to_sp(kvm, sp.spt) != sp:
        auditor.say("I13", f"the frame of special {auditor.page_name(sp)} does not point back to it")
    if (host_pa(kvm, sp.spt) < Hpa.HIGH_ZONE) != (top == 3):
        auditor.say("I13", f"special {auditor.page_name(sp)} is on the wrong side of 4 GiB")
    return None


@cython.cfunc
def validate_reach(auditor: Auditor, sp: ShadowPagePtr, top: cython.int) -> object:
    """I13: four entries at level 3, one above; in the four PDPTEs of a 3-level walk no bit that is reserved there.

    A CPU model may set A in a PDPTE, where a real one reserves it; KVM itself never does.
    """
    reserved: cython.bint = False
    reach: cython.int = 4 if role_level(sp.role) == 3 else 1
    beyond: u64 = next_used(sp.spt, reach, ENTRIES, sp.nothing)
    if beyond < ENTRIES:
        auditor.say("I13", f"special {auditor.page_name(sp)} has entry {beyond:#x}, beyond its reach")
    i: cython.int
    for i in range(reach):
        if top == 3 and is_present(sp.spt[i]) and sp.spt[i] & (Pte.WRITABLE | Pte.USER | Pte.ACCESSED | Pte.NX):
            reserved = True
    if reserved:
        auditor.say("I13", f"special {auditor.page_name(sp)} has reserved bits in a PDPTE")
    return None
