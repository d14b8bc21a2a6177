# SPDX-License-Identifier: GPL-2.0-only
"""Roots that are special shadow pages: empty when they are loaded, then filled by faults like any other page.

No PDPTE is read at the load, so one that leads outside memory is a fault of the access that uses it.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.state import (
    KvmMmuPtr,
    KvmPtr,
    KvmVcpuPtr,
    ListHeadPtr,
    RootOpsPtr,
    gfn_t,
    p_u64,
    to_shadow_page,
)
from cython.cimports.shadowmmu.engine.roots.root_page import install_root
from cython.cimports.shadowmmu.engine.shadow.special import alloc_special_page, free_special_root


def load_special_root(vcpu: KvmVcpuPtr, gfn: gfn_t, pdptrs: p_u64) -> cython.int:
    """Getting the root diverts to the allocator of special pages (R13): it starts empty."""
    return install_root(vcpu, alloc_special_page(vcpu, vcpu.mmu, vcpu.mmu.root_role))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def free(kvm: KvmPtr, mmu: KvmMmuPtr, invalid: ListHeadPtr) -> cython.void:
    """At once, without the invalid list (R8)."""
    free_special_root(kvm, to_shadow_page(kvm, mmu.root.hpa))


def special_roots(ops: RootOpsPtr) -> cython.void:
    ops.load = load_special_root
    ops.free = free
