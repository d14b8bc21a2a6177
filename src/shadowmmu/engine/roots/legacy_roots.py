"""Today's roots without a guest table: `pae_root`, `pml4_root`, `pml5_root`, bare pages that are no shadow pages.

The four level-2 pages below hold a root reference each, the tables above have neither role nor rmap, and every
path that meets a root has to know: that is what `special` replaces. Kept beside it to run both on one guest.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Role, RoleShift, set_level
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    Bug,
    Hpa,
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    ListHeadPtr,
    ShadowPagePtr,
    gfn_t,
    host_pa,
    p_hpa,
    p_spte,
    p_u64,
    role_t,
    to_shadow_page,
    u64,
    warn,
)
from cython.cimports.shadowmmu.engine.guest.mmu import get_pdptr, guest_level, root_level
from cython.cimports.shadowmmu.engine.memory.memslots import is_visible_gfn
from cython.cimports.shadowmmu.engine.pages.zap import prepare_zap_page
from cython.cimports.shadowmmu.engine.shadow.get_page import get_shadow_page
from cython.cimports.shadowmmu.engine.shadow.sync import sync_children
from cython.cimports.shadowmmu.x86.pte import Pte


def alloc_root(vcpu: KvmVcpuPtr, gfn: gfn_t, quadrant: cython.int, level: cython.int) -> ShadowPagePtr:
    """mmu_alloc_root: a shadow page that a root slot holds."""
    role: role_t = set_level(vcpu.mmu.root_role, level) | cython.cast(role_t, quadrant) << RoleShift.QUADRANT_SHIFT
    sp: ShadowPagePtr = get_shadow_page(vcpu, gfn, role)
    if sp != cython.NULL:
        sp.root_count += 1
    return sp


def put_root_page(kvm: KvmPtr, root: p_hpa, invalid: ListHeadPtr) -> cython.void:
    """mmu_free_root_page: a root slot lets go; a page zapped meanwhile is freed with its last slot."""
    if root[0] == Hpa.INVALID_PAGE:
        return
    sp: ShadowPagePtr = to_shadow_page(kvm, root[0])
    sp.root_count -= 1
    if not sp.root_count and sp.role & Role.INVALID:
        prepare_zap_page(kvm, sp, invalid)
    root[0] = Hpa.INVALID_PAGE


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


def legacy_load_direct(vcpu: KvmVcpuPtr) -> cython.void:
    """Four direct level-2 pages, a gigabyte each, made at once."""
    i: cython.int
    for i in range(4):
        set_slot(vcpu, i, cython.cast(gfn_t, i) << 18, 0, Pte.PRESENT | vcpu.kvm.masks.me_value)
    vcpu.mmu.root.hpa = host_pa(vcpu.kvm, vcpu.mmu.pae_root)


def legacy_read_pdptrs(vcpu: KvmVcpuPtr, pdptrs: p_u64) -> cython.int:
    """Read the guest's PDPTEs before the load; 1 if a present one leads outside memory (then: triple fault).

    The whole entry counts as its address: nobody checked the reserved bits of an NPT's PDPTE before.
    """
    i: cython.int
    for i in range(4):
        pdptrs[i] = get_pdptr(vcpu, vcpu.mmu, i)
        if pdptrs[i] & Pte.PRESENT and not is_visible_gfn(vcpu.kvm, vcpu.smm, pdptrs[i] >> PAGE_SHIFT):
            return 1
    return 0


def legacy_load_shadow(vcpu: KvmVcpuPtr, root_gfn: gfn_t, pdptrs: p_u64) -> cython.void:
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


def legacy_free(kvm: KvmPtr, mmu: KvmMmuPtr, invalid: ListHeadPtr) -> cython.void:
    """Let go of the four level-2 roots."""
    i: cython.int
    for i in range(4):
        if mmu.pae_root[i]:
            put_root_page(kvm, cython.address(mmu.pae_root[i]), invalid)
            mmu.pae_root[i] = 0


def legacy_sync(vcpu: KvmVcpuPtr) -> cython.void:
    i: cython.int
    for i in range(4):
        if vcpu.mmu.pae_root[i]:
            sync_children(vcpu, to_shadow_page(vcpu.kvm, vcpu.mmu.pae_root[i]))
