# SPDX-License-Identifier: GPL-2.0-only
"""Today's roots without a guest table: `pae_root`, `pml4_root`, `pml5_root`, bare pages that are no shadow pages.

The four level-2 pages below hold a root reference each, the tables above have neither role nor rmap, and every
path that meets a root has to know: that is what `special` replaces. Kept beside it to run both on one guest.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    Bug,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    ListHeadPtr,
    RootOpsPtr,
    ShadowPagePtr,
    gfn_t,
    host_pa,
    p_spte,
    p_u64,
    to_shadow_page,
    u64,
    warn,
)
from cython.cimports.shadowmmu.engine.guest.mmu import get_pdptr, guest_level, is_direct, root_level
from cython.cimports.shadowmmu.engine.memory.memslots import is_visible_gfn
from cython.cimports.shadowmmu.engine.roots.root_page import alloc_root, put_root_page
from cython.cimports.shadowmmu.engine.shadow.sync import sync_children
from cython.cimports.shadowmmu.x86.pte import Pte


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def high_table(kvm: KvmPtr, index: cython.int) -> p_spte:
    """A root table page above 4 GiB, behind the shadow pages' tables."""
    return cython.cast(p_spte, kvm.frames + ((kvm.table_base + kvm.npages_pool + index) << PAGE_SHIFT))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def create_tables(vcpu: KvmVcpuPtr) -> cython.void:
    """For a 32-bit L1's NPT on a 64-bit host: pml4_root, pml5_root, and a pae_root that may lie anywhere."""
    kvm: KvmPtr = vcpu.kvm
    if kvm.host_levels == 3:
        return
    vcpu.guest_mmu.pae_root = high_table(kvm, 3 * vcpu.id)
    vcpu.guest_mmu.pml4_root = high_table(kvm, 3 * vcpu.id + 1)
    vcpu.guest_mmu.pml5_root = high_table(kvm, 3 * vcpu.id + 2)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_slot(vcpu: KvmVcpuPtr, i: cython.int, gfn: gfn_t, quadrant: cython.int, bits: u64) -> cython.void:
    """Fill one of the four PDPTEs with a new level-2 root."""
    mmu: KvmMmuPtr = vcpu.mmu
    if mmu.pae_root[i]:
        warn(vcpu.kvm, Bug.BUG_PAE_ROOT_VALID)
    sp: ShadowPagePtr = alloc_root(vcpu, gfn, quadrant, 2)
    mmu.pae_root[i] = host_pa(vcpu.kvm, sp.spt) | bits if sp != cython.NULL else 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_direct(vcpu: KvmVcpuPtr) -> cython.void:
    """Four direct level-2 pages, a gigabyte each, made at once."""
    i: cython.int
    for i in range(4):
        set_slot(vcpu, i, cython.cast(gfn_t, i) << 18, 0, Pte.PRESENT | vcpu.kvm.masks.me_value)
    vcpu.mmu.root.hpa = host_pa(vcpu.kvm, vcpu.mmu.pae_root)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_pdptrs(vcpu: KvmVcpuPtr, pdptrs: p_u64) -> cython.int:
    """Read a PAE guest's PDPTEs before the load; 1 if a present one leads outside memory (then: triple fault).

    The whole entry counts as its address: nobody checked the reserved bits of an NPT's PDPTE before.
    """
    if guest_level(vcpu.mmu) != 3:
        return 0
    i: cython.int
    for i in range(4):
        pdptrs[i] = get_pdptr(vcpu, vcpu.mmu, i)
        if pdptrs[i] & Pte.PRESENT and not is_visible_gfn(vcpu.kvm, vcpu.smm, pdptrs[i] >> PAGE_SHIFT):
            if not vcpu.kvm.rules.hides_pdpte:
                return 1
            pdptrs[i] = 0
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_shadow(vcpu: KvmVcpuPtr, root_gfn: gfn_t, pdptrs: p_u64) -> cython.void:
    """A level-2 page for each PDPTE of a PAE guest, or for each quadrant of a 2-level one's directory."""
    mmu: KvmMmuPtr = vcpu.mmu
    kvm: KvmPtr = vcpu.kvm
    bits: u64 = Pte.PRESENT | kvm.masks.me_value
    top: p_spte = mmu.pae_root
    if root_level(mmu) >= 4:
        bits |= Pte.ACCESSED | Pte.WRITABLE | Pte.USER
        mmu.pml4_root[0] = host_pa(kvm, mmu.pae_root) | bits
        top = mmu.pml4_root
    if root_level(mmu) == 5:
        mmu.pml5_root[0] = host_pa(kvm, mmu.pml4_root) | bits
        top = mmu.pml5_root
    i: cython.int
    for i in range(4):
        if guest_level(mmu) == 3:
            if not pdptrs[i] & Pte.PRESENT:
                mmu.pae_root[i] = 0
                continue
            root_gfn = (pdptrs[i] & Pte.ADDR) >> PAGE_SHIFT
        set_slot(vcpu, i, root_gfn, i if guest_level(mmu) == 2 else 0, bits)
    mmu.root.hpa = host_pa(kvm, top)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load(vcpu: KvmVcpuPtr, gfn: gfn_t, pdptrs: p_u64) -> cython.int:
    """Bare tables, filled at once; no special page is made in any mode (R16)."""
    if is_direct(vcpu.mmu):
        load_direct(vcpu)
    else:
        load_shadow(vcpu, gfn, pdptrs)
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free(kvm: KvmPtr, mmu: KvmMmuPtr, invalid: ListHeadPtr) -> cython.void:
    """Let go of the four level-2 roots."""
    i: cython.int
    for i in range(4):
        if mmu.pae_root[i]:
            put_root_page(kvm, cython.address(mmu.pae_root[i]), invalid)
            mmu.pae_root[i] = 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def sync(vcpu: KvmVcpuPtr) -> cython.void:
    i: cython.int
    for i in range(4):
        if vcpu.mmu.pae_root[i]:
            sync_children(vcpu, to_shadow_page(vcpu.kvm, vcpu.mmu.pae_root[i]), True)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk_start(vcpu: KvmVcpuPtr, addr: u64, level: cython.p_int, table: cython.pointer(p_spte)) -> cython.void:
    """Begin below the bare tables: at the level-2 page of the address's gigabyte; no such page ends the walk."""
    link: u64 = vcpu.mmu.pae_root[(addr >> 30) & 3]
    if not link:
        level[0] = 0
        return
    table[0] = to_shadow_page(vcpu.kvm, link).spt
    level[0] = 2


def legacy_roots(ops: RootOpsPtr) -> cython.void:
    ops.prepare = read_pdptrs
    ops.load = load
    ops.free = free
    ops.create_tables = create_tables
    ops.sync = sync
    ops.walk_start = walk_start
