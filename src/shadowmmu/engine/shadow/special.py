# SPDX-License-Identifier: GPL-2.0-only
"""Special shadow pages, of which roots are made that have no guest table.

A special page holds the 4 PDPTEs above the level-2 pages of a 32-bit, PAE or nonpaging guest, or is one of the
levels above such a page when a 32-bit L1's NPT is shadowed on a 64-bit host (R1).

It is a shadow page like any other: it is linked, unlinked, walked, marked unsync and synced by the common code
(R10). But it is local to its vCPU. It is not on the active list and not in the hash, so no other vCPU finds it
(R4), except through the parent_ptes of its children (R5). It is not accounted (R6), not write-protected (R7), and
never zapped: it lives exactly as long as the root it belongs to (R8). It is never kept in prev_roots, because a
cached root is recognised by CR3 where these are made of PDPTEs, and because there is only one pae_root (R9).

It can be obsolete, and right again later. When zap_all_fast has run, every obsolete child has been unlinked from
it through the child's rmap; if its vCPU was preempted across two runs the one-bit generation matches again, and
the page, empty, is reused (R11, R12).

Whether a root is special is asked of the root's own page (`ShadowPage.special`), never of the MMU's present mode:
modes change before roots are freed (hazard H1).
"""

import cython
from cython.cimports.libc.string import memcpy
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.role import role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SIZE,
    Bug,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    ShadowPagePtr,
    frame_index,
    host_pa,
    role_t,
    spte_t,
    to_shadow_page,
    warn,
)
from cython.cimports.shadowmmu.engine.guest.mmu import root_level
from cython.cimports.shadowmmu.engine.pages.pages import give_header, take_header
from cython.cimports.shadowmmu.engine.pages.zap import zap_pte


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def use_pae_root(kvm: KvmPtr, mmu: KvmMmuPtr, sp: ShadowPagePtr) -> cython.void:
    """Put a level-3 root's table where a 32-bit CR3 reaches it, emptied: freed entries must not come back (H5)."""
    kvm.frame_private[frame_index(kvm, sp.spt)] = cython.NULL
    sp.spt = mmu.pae_root
    memcpy(sp.spt, kvm.empty_table, PAGE_SIZE)
    kvm.frame_private[frame_index(kvm, sp.spt)] = sp


def alloc_special_page(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr, role: role_t) -> ShadowPagePtr:
    """A special page with `role`, owned by the vCPU: gfn 0, no translations, the present generation (R2, R3).

    It enters neither the hash nor the list of active pages (R4), and no counter (R6).
    """
    kvm: KvmPtr = vcpu.kvm
    sp: ShadowPagePtr = take_header(kvm)
    if sp == cython.NULL:
        return cython.NULL
    sp.special = True
    sp.owner = vcpu.id
    sp.gfn = 0
    sp.role = role
    sp.mmu_valid_gen = kvm.mmu_valid_gen
    if role_level(role) == 3 and root_level(mmu) == 3:
        use_pae_root(kvm, mmu, sp)
    kvm.stat.special_allocated += 1
    emit(kvm, vcpu.id, Event.SPECIAL_ALLOC, role, host_pa(kvm, sp.spt))
    return sp


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free_special_page(kvm: KvmPtr, sp: ShadowPagePtr) -> cython.void:
    """Unlink every child, then give the page back at once; pae_root stays, but no longer points to us (H7).

    A level-3 page has 4 entries, one above it has 1, as `shadow_walk` and `walker` bound the index; the audit holds the
    others to hold nothing (I13): children keep a pointer to each entry that is not unlinked (H2). No invalid list is handed on,
    so no child is zapped with its parent (R15).
    """
    i: cython.int
    for i in range(4 if role_level(sp.role) == 3 else 1):
        if is_present(sp.spt[i]):
            zap_pte(kvm, sp, cython.address(sp.spt[i]), cython.NULL)
    kvm.frame_private[frame_index(kvm, sp.spt)] = cython.NULL
    kvm.stat.special_freed += 1
    emit(kvm, sp.owner, Event.SPECIAL_FREE, sp.role, host_pa(kvm, sp.spt))
    give_header(kvm, sp)


def free_special_root(kvm: KvmPtr, root: ShadowPagePtr) -> cython.void:
    """Free a special root at once, on no invalid list (R8): levels 5 and 4 down to 3, each before its child (R14).

    A level-3 page is made on demand, so the chain may end early; then nothing below is touched (H16). The
    level-2 children survive, parentless, in the hash.
    """
    sp: ShadowPagePtr = root
    while role_level(sp.role) > 3:
        link: spte_t = sp.spt[0]
        free_special_page(kvm, sp)
        if not is_present(link):
            return
        sp = to_shadow_page(kvm, link)
    if role_level(sp.role) != 3 or not sp.special:
        warn(kvm, Bug.BUG_SPECIAL_LEVEL)
        return
    free_special_page(kvm, sp)
