# SPDX-License-Identifier: GPL-2.0-only
"""Roots: load, free, keep for later, switch, obsolete.

A root of 4 or 5 guest levels is an ordinary shadow page held by a root slot, and the last three are kept in
prev_roots. The others have no guest table: how they are made is a matter of designs, of which `designs` has the
table and a VM has one (`Kvm.root_ops`). Whatever it is, such a root is a special page or a bare table, which is
no shadow page at all.

Inline in the .pxd, since it runs in every fault: `is_root_stale`.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.role import Role
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    PREV_ROOTS,
    Bug,
    Hpa,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    ListHead,
    ListHeadPtr,
    Request,
    RootInfo,
    RootInfoPtr,
    ShadowPagePtr,
    dummy_root,
    gfn_t,
    hpa_t,
    list_init,
    to_shadow_page,
    u64,
    warn,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_hw_all, make_request
from cython.cimports.shadowmmu.engine.entries.mmio import AllGva, clear_mmio_info
from cython.cimports.shadowmmu.engine.guest.mmu import guest_level, guest_pgd, init_mmu, is_direct, root_level
from cython.cimports.shadowmmu.engine.memory.memslots import is_visible_gfn
from cython.cimports.shadowmmu.engine.pages.pages import is_obsolete
from cython.cimports.shadowmmu.engine.pages.zap import commit_zap, make_pages_available, topup_memory_caches
from cython.cimports.shadowmmu.engine.roots.root_page import alloc_root, install_root, put_root_page
from cython.cimports.shadowmmu.engine.shadow.sync import sync_children
from cython.cimports.shadowmmu.x86.pte import Pte

# --- loading


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def wants_tableless_root(mmu: KvmMmuPtr) -> cython.bint:
    """The root to be made for these roles has no guest table: 3 shadow levels, or above 32-bit NPT (R1)."""
    return root_level(mmu) == 3 or (not is_direct(mmu) and guest_level(mmu) <= 3)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_tableless(kvm: KvmPtr, root: hpa_t) -> cython.bint:
    """The design has made this root. It is asked itself, as the MMU's mode may have changed since (H1)."""
    sp: ShadowPagePtr = to_shadow_page(kvm, root)
    return sp == cython.NULL or sp.special


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def alloc_direct_roots(vcpu: KvmVcpuPtr) -> cython.int:
    """mmu_alloc_direct_roots: for a nonpaging guest, or L1 under NPT."""
    result: cython.int = make_pages_available(vcpu.kvm)
    if result < 0:
        return result
    if wants_tableless_root(vcpu.mmu):
        result = vcpu.kvm.root_ops.load(vcpu, 0, cython.NULL)
    else:
        result = install_root(vcpu, alloc_root(vcpu, 0, 0, root_level(vcpu.mmu)))
    if not result:
        vcpu.mmu.root.pgd = 0
    return result


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def alloc_shadow_roots(vcpu: KvmVcpuPtr) -> cython.int:
    """mmu_alloc_shadow_roots, mmu_check_root: 0, a negative errno, or 1 if CR3 leads outside memory: a triple fault.

    The root is made after pages have been made available, so that a refusal leaves none behind (H18).
    """
    mmu: KvmMmuPtr = vcpu.mmu
    kvm: KvmPtr = vcpu.kvm
    pgd: u64 = guest_pgd(vcpu, mmu)
    gfn: gfn_t = (pgd & Pte.ADDR if kvm.rules.masks_root_gfn else pgd) >> PAGE_SHIFT
    tableless: cython.bint = wants_tableless_root(mmu)
    pdptrs: u64[4]
    hidden: cython.bint = not is_visible_gfn(kvm, vcpu.smm, gfn)
    if not hidden and tableless and kvm.root_ops.prepare != cython.NULL:
        hidden = kvm.root_ops.prepare(vcpu, pdptrs)
    if hidden and kvm.rules.hides_root:
        mmu.root.hpa = dummy_root(kvm)
        return 0
    if hidden:
        make_request(vcpu, Request.REQ_TRIPLE_FAULT)
        return 1
    result: cython.int = make_pages_available(kvm)
    if result < 0:
        return result
    if tableless:
        result = kvm.root_ops.load(vcpu, gfn, pdptrs)
    else:
        result = install_root(vcpu, alloc_root(vcpu, gfn, 0, root_level(mmu)))
    if not result:
        mmu.root.pgd = pgd
    return result


def load_pgd(vcpu: KvmVcpuPtr) -> cython.void:
    """Give the root to the hardware at the next entry."""
    if vcpu.mmu.root.hpa != Hpa.INVALID_PAGE:
        emit(vcpu.kvm, vcpu.id, Event.LOAD_PGD, vcpu.mmu.root.hpa, root_level(vcpu.mmu))


def mmu_load(vcpu: KvmVcpuPtr) -> cython.int:
    """kvm_mmu_load: build a root, sync it, hand it over, flush (H14). On an error no root is left (H17, H18)."""
    emit(vcpu.kvm, vcpu.id, Event.MMU_LOAD)
    result: cython.int = topup_memory_caches(vcpu.kvm)
    if result:
        return result
    result = alloc_direct_roots(vcpu) if is_direct(vcpu.mmu) else alloc_shadow_roots(vcpu)
    if result:
        return result
    sync_roots(vcpu)
    load_pgd(vcpu)
    flush_hw_all(vcpu)
    return 0


# --- freeing


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free_current(kvm: KvmPtr, mmu: KvmMmuPtr, invalid: ListHeadPtr) -> cython.void:
    """Free the current root as what it is (H1); nobody else frees a special one (R8)."""
    if is_tableless(kvm, mmu.root.hpa):
        if mmu.root.hpa != dummy_root(kvm):
            kvm.root_ops.free(kvm, mmu, invalid)
    else:
        put_root_page(kvm, cython.address(mmu.root.hpa), invalid)
    mmu.root.hpa = Hpa.INVALID_PAGE
    mmu.root.pgd = 0


def free_roots(kvm: KvmPtr, mmu: KvmMmuPtr, mask: u64) -> cython.void:
    """kvm_mmu_free_roots: drop the slots in `mask` (RootMask). Only the owner of a special root calls it (H14)."""
    emit(kvm, -1, Event.FREE_ROOTS, mask)
    invalid: ListHead
    list_init(cython.address(invalid))
    i: cython.int
    for i in range(PREV_ROOTS):
        if mask >> (i + 1) & 1:
            put_root_page(kvm, cython.address(mmu.prev_roots[i].hpa), cython.address(invalid))
    if mask & RootMask.ROOT_CURRENT and mmu.root.hpa != Hpa.INVALID_PAGE:
        free_current(kvm, mmu, cython.address(invalid))
    commit_zap(kvm, cython.address(invalid))


def mmu_unload(vcpu: KvmVcpuPtr) -> cython.void:
    """kvm_mmu_unload: no root is left."""
    free_roots(vcpu.kvm, cython.address(vcpu.root_mmu), RootMask.ROOTS_ALL)
    free_roots(vcpu.kvm, cython.address(vcpu.guest_mmu), RootMask.ROOTS_ALL)
    if vcpu.root_mmu.root.hpa != Hpa.INVALID_PAGE or vcpu.guest_mmu.root.hpa != Hpa.INVALID_PAGE:
        warn(vcpu.kvm, Bug.BUG_ROOT_LEFT)
    clear_mmio_info(vcpu, AllGva.MMIO_GVA_ANY)


def reset_context(vcpu: KvmVcpuPtr) -> cython.void:
    """kvm_mmu_reset_context: the paging mode changed; drop every root, then take the new roles."""
    emit(vcpu.kvm, vcpu.id, Event.RESET_CONTEXT)
    mmu_unload(vcpu)
    init_mmu(vcpu)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_obsolete_root(kvm: KvmPtr, root: hpa_t) -> cython.bint:
    """Bare tables have no generation, so they count as obsolete; special pages have one and are asked (R11)."""
    if root == Hpa.INVALID_PAGE:
        return False
    sp: ShadowPagePtr = to_shadow_page(kvm, root)
    return sp == cython.NULL or is_obsolete(kvm, sp)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free_obsolete_roots_of(kvm: KvmPtr, mmu: KvmMmuPtr) -> cython.void:
    """__kvm_mmu_free_obsolete_roots: drop those of one MMU."""
    mask: u64 = 0
    i: cython.int
    if is_obsolete_root(kvm, mmu.root.hpa):
        mask |= RootMask.ROOT_CURRENT
    for i in range(PREV_ROOTS):
        if is_obsolete_root(kvm, mmu.prev_roots[i].hpa):
            mask |= cython.cast(u64, 2) << i
    if mask:
        free_roots(kvm, mmu, mask)


def free_obsolete_roots(vcpu: KvmVcpuPtr) -> cython.void:
    """kvm_mmu_free_obsolete_roots: what zap_all_fast, or the zap of a root, asks of each vCPU when it runs (R12)."""
    free_obsolete_roots_of(vcpu.kvm, cython.address(vcpu.root_mmu))
    free_obsolete_roots_of(vcpu.kvm, cython.address(vcpu.guest_mmu))


def free_guest_mode_roots(vcpu: KvmVcpuPtr, mmu: KvmMmuPtr) -> cython.void:
    """kvm_mmu_free_guest_mode_roots: drop cached roots that were made for L2."""
    mask: u64 = 0
    i: cython.int
    for i in range(PREV_ROOTS):
        hpa: hpa_t = mmu.prev_roots[i].hpa
        if hpa != Hpa.INVALID_PAGE and to_shadow_page(vcpu.kvm, hpa).role & Role.GUEST_MODE:
            mask |= cython.cast(u64, 2) << i
    free_roots(vcpu.kvm, mmu, mask)


# --- switching


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_root_usable(kvm: KvmPtr, mmu: KvmMmuPtr, root: RootInfoPtr, pgd: u64) -> cython.bint:
    """The slot holds a root for this CR3 and the MMU's role; a zapped one has role.invalid and never matches."""
    if root.hpa == Hpa.INVALID_PAGE or (not is_direct(mmu) and root.pgd != pgd):
        return False
    return to_shadow_page(kvm, root.hpa).role == mmu.root_role


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def swap_roots(one: RootInfoPtr, other: RootInfoPtr) -> cython.void:
    kept: RootInfo = one[0]
    one[0] = other[0]
    other[0] = kept


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def find_and_keep_current(kvm: KvmPtr, mmu: KvmMmuPtr, pgd: u64) -> cython.bint:
    """Rotate through the cache: the current root becomes the first previous one, the least recently used drops out.

    In the kernel: cached_root_find_and_keep_current.
    """
    if is_root_usable(kvm, mmu, cython.address(mmu.root), pgd):
        return True
    i: cython.int
    for i in range(PREV_ROOTS):
        swap_roots(cython.address(mmu.root), cython.address(mmu.prev_roots[i]))
        if is_root_usable(kvm, mmu, cython.address(mmu.root), pgd):
            return True
    free_roots(kvm, mmu, RootMask.ROOT_CURRENT)
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def find_without_current(kvm: KvmPtr, mmu: KvmMmuPtr, pgd: u64) -> cython.bint:
    """cached_root_find_without_current: there is no current root: one from the cache becomes it, and leaves a gap at the end."""
    i: cython.int
    for i in range(PREV_ROOTS):
        if is_root_usable(kvm, mmu, cython.address(mmu.prev_roots[i]), pgd):
            break
    else:
        return False
    swap_roots(cython.address(mmu.root), cython.address(mmu.prev_roots[i]))
    while i < PREV_ROOTS - 1:
        mmu.prev_roots[i] = mmu.prev_roots[i + 1]
        i += 1
    mmu.prev_roots[i].hpa = Hpa.INVALID_PAGE
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fast_pgd_switch(kvm: KvmPtr, mmu: KvmMmuPtr, pgd: u64) -> cython.bint:
    """A root for `pgd` from the cache; those without a guest table never go into it (R9)."""
    if mmu.root.hpa != Hpa.INVALID_PAGE and is_tableless(kvm, mmu.root.hpa):
        free_roots(kvm, mmu, RootMask.ROOT_CURRENT)
    if mmu.root.hpa != Hpa.INVALID_PAGE:
        return find_and_keep_current(kvm, mmu, pgd)
    return find_without_current(kvm, mmu, pgd)


def new_pgd(vcpu: KvmVcpuPtr, pgd: u64) -> cython.void:
    """kvm_mmu_new_pgd: CR3 (or its nested kin) changed, with the MMU's role already the new one."""
    mmu: KvmMmuPtr = vcpu.mmu
    emit(vcpu.kvm, vcpu.id, Event.NEW_PGD, pgd)
    if not fast_pgd_switch(vcpu.kvm, mmu, pgd):
        return
    make_request(vcpu, Request.REQ_LOAD_MMU_PGD)
    clear_mmio_info(vcpu, AllGva.MMIO_GVA_ANY)
    if not is_direct(mmu):
        to_shadow_page(vcpu.kvm, mmu.root.hpa).write_flooding_count = 0


# --- syncing


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_unsync_root(kvm: KvmPtr, root: hpa_t) -> cython.bint:
    if root == Hpa.INVALID_PAGE:
        return False
    sp: ShadowPagePtr = to_shadow_page(kvm, root)
    return sp != cython.NULL and (sp.unsync or sp.unsync_children)


def sync_roots(vcpu: KvmVcpuPtr) -> cython.void:
    """kvm_mmu_sync_roots: the guest flushed its TLB, so shadow tables must agree with its tables again.

    A special root is synced from its own page like any other (R10).
    """
    emit(vcpu.kvm, vcpu.id, Event.SYNC_ROOTS)
    mmu: KvmMmuPtr = vcpu.mmu
    if is_direct(mmu) or mmu.root.hpa == Hpa.INVALID_PAGE:
        return
    clear_mmio_info(vcpu, AllGva.MMIO_GVA_ANY)
    root: ShadowPagePtr = to_shadow_page(vcpu.kvm, mmu.root.hpa)
    if root == cython.NULL:
        if mmu.root.hpa != dummy_root(vcpu.kvm):
            vcpu.kvm.root_ops.sync(vcpu)
    elif is_unsync_root(vcpu.kvm, mmu.root.hpa):
        sync_children(vcpu, root, True)


def sync_prev_roots(vcpu: KvmVcpuPtr) -> cython.void:
    """kvm_mmu_sync_prev_roots: cached roots with something unsync below are freed, which is as good as syncing them."""
    emit(vcpu.kvm, vcpu.id, Event.SYNC_PREV_ROOTS)
    mask: u64 = 0
    i: cython.int
    for i in range(PREV_ROOTS):
        if is_unsync_root(vcpu.kvm, vcpu.mmu.prev_roots[i].hpa):
            mask |= cython.cast(u64, 2) << i
    free_roots(vcpu.kvm, vcpu.mmu, mask)
