# SPDX-License-Identifier: GPL-2.0-only
"""Special roots that are prefilled: from the load on they lead to the level-2 pages that are there already.

An empty special root costs a fault for each of its entries, although the page below is often still in the hash from
the last time the guest ran on these tables. Here such pages are found and linked when the root is loaded, as the first
fault would do it: by the gfn that the guest's walk would come to, with the same role, and synced.

No page is made, so nothing is protected, counted or zapped for it, and a PDPTE that leads outside memory, where no page
can be, is still a fault of the access that uses it. A PDPTE that changes later in memory is noticed as it is below any
special page: by the next fault that goes through it (H4).
"""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Access, child_role, set_level
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    RootOpsPtr,
    ShadowPagePtr,
    gfn_t,
    p_u64,
    role_t,
    u64,
)
from cython.cimports.shadowmmu.engine.entries.shadow_walk import ShadowWalk, walk_init, walk_next, walk_okay
from cython.cimports.shadowmmu.engine.guest.mmu import get_pdptr, guest_level, is_direct, root_level
from cython.cimports.shadowmmu.engine.guest.walker import gpte_gfn
from cython.cimports.shadowmmu.engine.pages.pages import first_valid, link_shadow_page, next_valid
from cython.cimports.shadowmmu.engine.roots.special_roots import load_special_root, special_roots
from cython.cimports.shadowmmu.engine.shadow.get_page import get_child_sp
from cython.cimports.shadowmmu.engine.shadow.sync import sync_children
from cython.cimports.shadowmmu.x86.pte import Pte


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_pdptrs(vcpu: KvmVcpuPtr, pdptrs: p_u64) -> cython.int:
    """The PDPTEs of a PAE guest, before mmu_lock as reading may sleep. None of them is a reason not to run the guest."""
    i: cython.int
    for i in range(4 if guest_level(vcpu.mmu) == 3 else 0):
        pdptrs[i] = get_pdptr(vcpu, vcpu.mmu, i)
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_in_hash(kvm: KvmPtr, gfn: gfn_t, role: role_t) -> cython.bint:
    """There is a valid page of (gfn, role), so that getting it makes none."""
    sp: ShadowPagePtr = first_valid(kvm, gfn)
    while sp != cython.NULL and sp.role != role:
        sp = next_valid(kvm, sp.index_next, gfn)
    return sp != cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def link_level_2(vcpu: KvmVcpuPtr, addr: u64, gfn: gfn_t) -> cython.void:
    """Link the page of `gfn` where the walk of `addr` looks for it; above it special pages, as `fetch.build_upper` does."""
    mmu: KvmMmuPtr = vcpu.mmu
    it: ShadowWalk
    walk_init(cython.address(it), vcpu, mmu.root.hpa, addr)
    while walk_okay(cython.address(it)) and it.level > 2:
        sp: ShadowPagePtr = get_child_sp(vcpu, it.sptep, gfn if it.level == 3 else 0, is_direct(mmu), Access.ALL)
        if sp != cython.NULL:
            if sp.unsync_children:
                sync_children(vcpu, sp, True)
            link_shadow_page(vcpu.kvm, it.sptep, sp, root_level(mmu))
        walk_next(cython.address(it))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load(vcpu: KvmVcpuPtr, root_gfn: gfn_t, pdptrs: p_u64) -> cython.int:
    """A special root, and below it what is there of the four gigabytes: direct pages, a 2-level guest's directory by
    quadrants, or a table for each PDPTE that is present."""
    result: cython.int = load_special_root(vcpu, root_gfn, pdptrs)
    if result:
        return result
    mmu: KvmMmuPtr = vcpu.mmu
    i: cython.int
    for i in range(4):
        gfn: gfn_t = cython.cast(gfn_t, i) << 18
        if guest_level(mmu) == 3 and not is_direct(mmu):
            if not pdptrs[i] & Pte.PRESENT:
                continue
            gfn = gpte_gfn(mmu.format, pdptrs[i])
        elif not is_direct(mmu):
            gfn = gpte_gfn(mmu.format, root_gfn << PAGE_SHIFT)
        if is_in_hash(vcpu.kvm, gfn, child_role(set_level(mmu.root_role, 3), i, is_direct(mmu), Access.ALL)):
            link_level_2(vcpu, cython.cast(u64, i) << 30, gfn)
    return 0


def prefilled_roots(ops: RootOpsPtr) -> cython.void:
    special_roots(ops)
    ops.prepare = read_pdptrs
    ops.load = load
