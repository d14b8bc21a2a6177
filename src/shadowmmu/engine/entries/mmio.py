# SPDX-License-Identifier: GPL-2.0-only
"""MMIO: entries that mark "no memory here", valid for one memslot generation, and each vCPU's last MMIO access."""

import cython
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.spte import is_mmio_spte, is_present, make_mmio_spte, mmio_gen, mmio_spte_gen, mmio_spte_gfn
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    PAGE_SIZE,
    Bug,
    Errno,
    Gen,
    KvmPtr,
    KvmVcpuPtr,
    PfRet,
    gfn_t,
    gva_t,
    host_pa,
    p_spte,
    spte_t,
    u64,
    warn,
)
from cython.cimports.shadowmmu.engine.entries.shadow_walk import ShadowWalk, walk_init, walk_next, walk_okay
from cython.cimports.shadowmmu.engine.guest.mmu import is_direct
from cython.cimports.shadowmmu.x86.reserved import is_rsvd


def mmio_generation(vcpu: KvmVcpuPtr) -> u64:
    """The generation of the vCPU's memslots, as far as an entry can hold it."""
    return mmio_gen(vcpu.kvm, vcpu.smm)


def mark_mmio_spte(vcpu: KvmVcpuPtr, sptep: p_spte, gfn: gfn_t, access: cython.int) -> cython.void:
    kvm: KvmPtr = vcpu.kvm
    gen: u64 = mmio_generation(vcpu)
    spte: spte_t = make_mmio_spte(kvm, gfn, access, gen)
    emit(kvm, vcpu.id, Event.MARK_MMIO_SPTE, host_pa(kvm, sptep), gfn, spte & 7, gen)
    sptep[0] = spte


def sync_mmio_spte(vcpu: KvmVcpuPtr, sptep: p_spte, gfn: gfn_t, access: cython.int) -> cython.bint:
    """While syncing: an MMIO mark is renewed, or dropped if the guest entry now means another gfn. False: no mark."""
    if not is_mmio_spte(vcpu.kvm, sptep[0]):
        return False
    if gfn != mmio_spte_gfn(vcpu.kvm, sptep[0]):
        sptep[0] = vcpu.kvm.masks.nonpresent
    else:
        mark_mmio_spte(vcpu, sptep, gfn, access)
    return True


def check_mmio_spte(vcpu: KvmVcpuPtr, spte: spte_t) -> cython.bint:
    """The mark is of the present memslots. While they are being updated none is trusted."""
    if vcpu.kvm.memslot_gen[vcpu.smm] & Gen.GEN_UPDATE_IN_PROGRESS:
        return False
    now: u64 = mmio_generation(vcpu)
    then: u64 = mmio_spte_gen(vcpu.kvm, spte)
    emit(vcpu.kvm, vcpu.id, Event.CHECK_MMIO_SPTE, spte, now, then, now == then)
    return now == then


def cache_mmio_info(vcpu: KvmVcpuPtr, gva: gva_t, gfn: gfn_t, access: cython.int) -> cython.void:
    """vcpu_cache_mmio_info: remember the access for the emulator; not while memslots are being updated."""
    if vcpu.kvm.memslot_gen[vcpu.smm] & Gen.GEN_UPDATE_IN_PROGRESS:
        return
    vcpu.mmio_gva = 0 if vcpu.nested.guest_mode and vcpu.nested.npt else gva & ~cython.cast(u64, PAGE_SIZE - 1)
    vcpu.mmio_access = access
    vcpu.mmio_gfn = gfn
    vcpu.mmio_gen = vcpu.kvm.memslot_gen[vcpu.smm]


def clear_mmio_info(vcpu: KvmVcpuPtr, gva: gva_t) -> cython.void:
    """Forget the cached access, if it is to this address (MMIO_GVA_ANY: in any case)."""
    if gva == AllGva.MMIO_GVA_ANY or vcpu.mmio_gva == gva & ~cython.cast(u64, PAGE_SIZE - 1):
        vcpu.mmio_gva = 0


def mmio_info_in_cache(vcpu: KvmVcpuPtr, addr: u64, direct: cython.bint) -> cython.bint:
    """The access is the cached one: by frame for direct tables, by address otherwise."""
    if vcpu.mmio_gen != vcpu.kvm.memslot_gen[vcpu.smm]:
        return False
    if direct:
        return vcpu.mmio_gfn != 0 and vcpu.mmio_gfn == addr >> PAGE_SHIFT
    return vcpu.mmio_gva != 0 and vcpu.mmio_gva == addr & ~cython.cast(u64, PAGE_SIZE - 1)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def find_mmio_spte(vcpu: KvmVcpuPtr, addr: u64, spte: p_spte) -> cython.bint:
    """get_mmio_spte, get_walk: the last entry on the path of `addr`. True: a present entry on it has reserved bits, a bug of ours (H11)."""
    reserved: cython.bint = False
    it: ShadowWalk
    walk_init(cython.address(it), vcpu, vcpu.mmu.root.hpa, addr)
    spte[0] = 0
    while walk_okay(cython.address(it)):
        spte[0] = it.sptep[0]
        if is_present(spte[0]) and is_rsvd(cython.address(vcpu.mmu.shadow_zero), spte[0], it.level):
            reserved = True
        walk_next(cython.address(it))
    return reserved


def handle_mmio_page_fault(vcpu: KvmVcpuPtr, addr: u64) -> cython.int:
    """get_mmio_spte_access: a reserved-bit fault: an MMIO mark of this generation means emulate; an old one, handle as a normal fault."""
    direct: cython.bint = is_direct(vcpu.mmu)
    if mmio_info_in_cache(vcpu, addr, direct):
        return PfRet.RET_PF_EMULATE
    spte: spte_t = 0
    if find_mmio_spte(vcpu, addr, cython.address(spte)):
        warn(vcpu.kvm, Bug.BUG_RSVD_MMIO_WALK)
        return -cython.cast(cython.int, Errno.EINVAL)
    if not is_mmio_spte(vcpu.kvm, spte):
        return PfRet.RET_PF_RETRY
    if not check_mmio_spte(vcpu, spte):
        return PfRet.RET_PF_INVALID
    gfn: gfn_t = mmio_spte_gfn(vcpu.kvm, spte)
    access: cython.int = spte & vcpu.kvm.masks.mmio_access
    if direct:
        addr = 0
    emit(vcpu.kvm, vcpu.id, Event.HANDLE_MMIO_PAGE_FAULT, addr, gfn, access)
    cache_mmio_info(vcpu, addr, gfn, access)
    return PfRet.RET_PF_EMULATE
