# SPDX-License-Identifier: GPL-2.0-only
"""A shadow page as a root: taken by a slot, put back."""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Role, RoleShift, set_level
from cython.cimports.shadowmmu.engine.arena.state import (
    Errno,
    Hpa,
    KvmPtr,
    KvmVcpuPtr,
    ListHeadPtr,
    ShadowPagePtr,
    gfn_t,
    host_pa,
    p_hpa,
    role_t,
    to_shadow_page,
)
from cython.cimports.shadowmmu.engine.pages.zap import prepare_zap_page
from cython.cimports.shadowmmu.engine.shadow.get_page import get_shadow_page


def alloc_root(vcpu: KvmVcpuPtr, gfn: gfn_t, quadrant: cython.int, level: cython.int) -> ShadowPagePtr:
    """mmu_alloc_root: a shadow page that a root slot holds."""
    role: role_t = set_level(vcpu.mmu.root_role, level) | cython.cast(role_t, quadrant) << RoleShift.QUADRANT_SHIFT
    sp: ShadowPagePtr = get_shadow_page(vcpu, gfn, role)
    if sp != cython.NULL:
        sp.root_count += 1
    return sp


def install_root(vcpu: KvmVcpuPtr, sp: ShadowPagePtr) -> cython.int:
    """`sp` is the root; what hangs below is made by the first faults. NULL: no memory was left for it."""
    if sp == cython.NULL:
        return -cython.cast(cython.int, Errno.ENOMEM)
    vcpu.mmu.root.hpa = host_pa(vcpu.kvm, sp.spt)
    return 0


def put_root_page(kvm: KvmPtr, root: p_hpa, invalid: ListHeadPtr) -> cython.void:
    """mmu_free_root_page: a root slot lets go; a page zapped meanwhile is freed with its last slot."""
    if root[0] == Hpa.INVALID_PAGE:
        return
    sp: ShadowPagePtr = to_shadow_page(kvm, root[0])
    sp.root_count -= 1
    if not sp.root_count and sp.role & Role.INVALID:
        prepare_zap_page(kvm, sp, invalid)
    root[0] = Hpa.INVALID_PAGE
