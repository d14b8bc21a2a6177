# SPDX-License-Identifier: GPL-2.0-only
"""kvm_mmu_get_page: find, sync or make the shadow page of (gfn, role), and the child of an entry."""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit_sp
from cython.cimports.shadowmmu.engine.arena.role import Role, child_role, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_large, is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    Bug,
    KvmPtr,
    KvmVcpuPtr,
    ListHead,
    ListHeadPtr,
    ShadowPagePtr,
    gfn_t,
    list_init,
    p_spte,
    role_t,
    spte_index,
    sptep_to_sp,
    to_shadow_page,
    u64,
    unlikely,
    warn,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_remote_tlbs
from cython.cimports.shadowmmu.engine.pages.page_index import hash_bucket
from cython.cimports.shadowmmu.engine.pages.pages import alloc_shadow_page, first_valid, is_obsolete, next_valid
from cython.cimports.shadowmmu.engine.pages.zap import commit_zap, prepare_zap_page
from cython.cimports.shadowmmu.engine.shadow.special import alloc_special_page
from cython.cimports.shadowmmu.engine.shadow.sync import sync_sp


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def count_collisions(kvm: KvmPtr, gfn: gfn_t, found: ShadowPagePtr, own: u64) -> cython.void:
    """How many valid pages of other gfns the kernel passes in its bucket before `found`, or (NULL) all: a maximum is kept.

    The bucket is walked only if it holds enough of them for a new one; `own` of its pages are known to be of this gfn.
    """
    if kvm.hash[hash_bucket(gfn)].pages - own <= kvm.stat.max_mmu_page_hash_collisions:
        return
    collisions: u64 = 0
    sp: ShadowPagePtr = kvm.hash[hash_bucket(gfn)].first
    while sp != found:
        collisions += sp.gfn != gfn and not is_obsolete(kvm, sp)
        sp = sp.hash_next
    kvm.stat.max_mmu_page_hash_collisions = max(collisions, kvm.stat.max_mmu_page_hash_collisions)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def find_role(kvm: KvmPtr, gfn: gfn_t, role: role_t, invalid: ListHeadPtr) -> ShadowPagePtr:
    """The valid page of (gfn, role), or NULL. Unsync ones met before it are zapped if it is an upper-level page."""
    own: u64 = 0
    sp: ShadowPagePtr = first_valid(kvm, gfn)
    while sp != cython.NULL:
        own += 1
        if sp.role == role:
            break
        if role_level(role) > 1 and sp.unsync:
            prepare_zap_page(kvm, sp, invalid)
        sp = next_valid(kvm, sp.index_next, gfn)
    count_collisions(kvm, gfn, sp, own)
    return sp


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def find_shadow_page(vcpu: KvmVcpuPtr, gfn: gfn_t, role: role_t) -> ShadowPagePtr:
    """kvm_mmu_find_shadow_page: the valid page of (gfn, role), synced, or NULL.

    An unsync page is synced but stays unsync and writable: its content is right at this moment, which is all a
    walk needs. While an upper-level page of the same gfn is being made, unsync ones are zapped, because the gfn
    must become write-protected.
    """
    kvm: KvmPtr = vcpu.kvm
    invalid: ListHead
    list_init(cython.address(invalid))
    sp: ShadowPagePtr = find_role(kvm, gfn, role, cython.address(invalid))
    if sp != cython.NULL and not sp.role & Role.DIRECT:
        # A page that needed no change is as good as one that did: only a negative result means rebuild.
        result: cython.int = sync_sp(vcpu, sp, cython.address(invalid)) if sp.unsync else 0
        if result < 0:
            sp = cython.NULL
        else:
            if result > 0:
                flush_remote_tlbs(kvm)
            sp.write_flooding_count = 0
    if sp == cython.NULL:
        kvm.stat.mmu_cache_miss += 1
    commit_zap(kvm, cython.address(invalid))
    return sp


def get_shadow_page(vcpu: KvmVcpuPtr, gfn: gfn_t, role: role_t) -> ShadowPagePtr:
    """kvm_mmu_get_shadow_page, __kvm_mmu_get_shadow_page: an existing page, or a new one whose guest table is then write-protected."""
    created: cython.bint = False
    sp: ShadowPagePtr = find_shadow_page(vcpu, gfn, role)
    if sp == cython.NULL:
        created = True
        sp = alloc_shadow_page(vcpu.kvm, gfn, role)
        if sp == cython.NULL:
            return cython.NULL
    emit_sp(vcpu.kvm, vcpu.id, Event.KVM_MMU_GET_PAGE, sp, created)
    return sp


def get_child_sp(vcpu: KvmVcpuPtr, sptep: p_spte, gfn: gfn_t, direct: cython.bint, access: cython.int) -> ShadowPagePtr:
    """kvm_mmu_get_child_sp: the page to link at `sptep`, or NULL if the right one is linked already.

    A present entry is right only if its child's gfn and role are what would be asked for now; those of a special page are
    compared like any other's (H8). A PDPT is not
    write-protected, so the guest may have changed it since (H4); tables in use as two kinds change meaning
    (CVE-2026-46113, CVE-2026-53359). A wrong one stays until it is replaced.

    Below a special page, levels 3 and above are special too (R13): no hash, no trace, no statistics. Bare roots have no
    special page to be below (R16).
    """
    parent: ShadowPagePtr = sptep_to_sp(vcpu.kvm, sptep)
    if unlikely(parent.role & Role.INVALID):
        warn(vcpu.kvm, Bug.BUG_INVALID_CHILD)
    role: role_t = child_role(parent.role, spte_index(sptep), direct, access)
    if is_present(sptep[0]) and not is_large(sptep[0]):
        child: ShadowPagePtr = to_shadow_page(vcpu.kvm, sptep[0])
        if child.gfn == gfn and child.role == role:
            return cython.NULL
    if parent.special and role_level(role) >= 3:
        return alloc_special_page(vcpu, vcpu.mmu, role)
    return get_shadow_page(vcpu, gfn, role)
