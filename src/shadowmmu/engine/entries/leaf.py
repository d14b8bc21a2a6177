# SPDX-License-Identifier: GPL-2.0-only
"""Setting a leaf: replace what is there, write the entry, enter the rmap."""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.role import role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_large, is_present, spte_pfn
from cython.cimports.shadowmmu.engine.arena.state import (
    KvmPtr,
    KvmVcpuPtr,
    MemSlotPtr,
    PfRet,
    ShadowPagePtr,
    gfn_t,
    host_pa,
    p_spte,
    pfn_t,
    spte_index,
    spte_t,
    sptep_to_sp,
    to_shadow_page,
)
from cython.cimports.shadowmmu.engine.arena.tlb import flush_remote_tlbs
from cython.cimports.shadowmmu.engine.entries.make_spte import make_spte
from cython.cimports.shadowmmu.engine.entries.mmio import mark_mmio_spte
from cython.cimports.shadowmmu.engine.memory.rmap import drop_spte, rmap_add, set_access, spte_update
from cython.cimports.shadowmmu.engine.pages.pages import drop_parent_pte


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def drop_other(kvm: KvmPtr, sptep: p_spte, level: cython.int, pfn: pfn_t) -> cython.int:
    """Clear a present entry that is not a leaf of `pfn`. 0: it stays (was mapped), 1: dropped, a flush is due."""
    if level > 1 and not is_large(sptep[0]):
        drop_parent_pte(kvm, to_shadow_page(kvm, sptep[0]), sptep)
        return 1
    if pfn != spte_pfn(sptep[0]):
        drop_spte(kvm, sptep)
        return 1
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def set_mmio(vcpu: KvmVcpuPtr, sptep: p_spte, level: cython.int, gfn: gfn_t, access: cython.int) -> cython.int:
    """Put an MMIO mark; a present entry goes first, or its rmap entry would be lost (CVE-2026-23401)."""
    if is_present(sptep[0]):
        drop_other(vcpu.kvm, sptep, level, Pfn.PFN_NOSLOT)
        flush_remote_tlbs(vcpu.kvm)
    vcpu.stat.pf_mmio_spte_created += 1
    mark_mmio_spte(vcpu, sptep, gfn, access)
    return PfRet.RET_PF_EMULATE


def set_spte(
    vcpu: KvmVcpuPtr,
    slot: MemSlotPtr,
    sptep: p_spte,
    access: cython.int,
    gfn: gfn_t,
    pfn: pfn_t,
    fault: PageFaultPtr,
) -> cython.int:
    """mmu_set_spte: map `gfn` at `sptep`. `fault` is NULL while prefetching, which has only writable frames."""
    kvm: KvmPtr = vcpu.kvm
    sp: ShadowPagePtr = sptep_to_sp(kvm, sptep)
    level: cython.int = role_level(sp.role)
    prefetch: cython.bint = fault == cython.NULL
    host_writable: cython.bint = prefetch or fault.map_writable
    if pfn == Pfn.PFN_NOSLOT:
        return set_mmio(vcpu, sptep, level, gfn, access)
    flush: cython.bint = False
    was_rmapped: cython.bint = False
    if is_present(sptep[0]):
        flush = drop_other(kvm, sptep, level, pfn)
        was_rmapped = not flush
    made: spte_t = 0
    wrprot: cython.bint = make_spte(vcpu, sp, slot, access, gfn, pfn, sptep[0], prefetch, True, host_writable, cython.address(made))
    result: cython.int = PfRet.RET_PF_FIXED
    if sptep[0] == made:
        result = PfRet.RET_PF_SPURIOUS
    else:
        if spte_update(kvm, sptep, made):
            flush = True
        emit(kvm, vcpu.id, Event.KVM_MMU_SET_SPTE, gfn, made, host_pa(kvm, sptep), level)
    if wrprot and not prefetch and fault.write:
        vcpu.retry.met_table = True
        result = PfRet.RET_PF_EMULATE
    if flush:
        flush_remote_tlbs(kvm)
    if was_rmapped:
        set_access(kvm, sp, spte_index(sptep), access)
    else:
        rmap_add(kvm, slot, sptep, gfn, access)
    return result
