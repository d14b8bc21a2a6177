# SPDX-License-Identifier: GPL-2.0-only
"""Writes to shadowed guest tables: the emulator stores, and every shadow of the table follows."""

import cython
from cython.cimports.libc.string import memcpy
from cython.cimports.shadowmmu.engine.arena.events import Event, emit
from cython.cimports.shadowmmu.engine.arena.role import Role, RoleShift, role_level
from cython.cimports.shadowmmu.engine.arena.spte import is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    PAGE_SIZE,
    KvmPtr,
    KvmVcpuPtr,
    ListHead,
    ListHeadPtr,
    ShadowPagePtr,
    gfn_t,
    gpa_t,
    list_init,
    p_spte,
    p_u8,
    role_t,
    u64,
)
from cython.cimports.shadowmmu.engine.memory.guest_memory import read_guest, write_guest
from cython.cimports.shadowmmu.engine.pages.pages import first_with_gptes, next_with_gptes
from cython.cimports.shadowmmu.engine.pages.zap import prepare_zap_page, remote_flush_or_zap, zap_pte
from cython.cimports.shadowmmu.x86.control import Cr4


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_misaligned(sp: ShadowPagePtr, gpa: gpa_t, bytes: cython.int) -> cython.bint:
    """detect_write_misaligned: the write is not to one entry: the page is data now, or is being cleared.

    A single byte at the start of an entry is an ordinary change of flag bits.
    """
    offset: cython.int = gpa & (PAGE_SIZE - 1)
    size: cython.int = 4 if sp.role & Role.HAS_4_BYTE_GPTE else 8
    if bytes == 1 and not offset & (size - 1):
        return False
    return (offset ^ (offset + bytes - 1)) & ~(size - 1) != 0 or bytes < 4


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_flooded(sp: ShadowPagePtr) -> cython.bint:
    """detect_write_flooding: the third write in a row to an upper-level table that nobody walked meanwhile."""
    if role_level(sp.role) == 1:
        return False
    sp.write_flooding_count += 1
    return sp.write_flooding_count >= FLOOD_LIMIT


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def written_sptes(sp: ShadowPagePtr, gpa: gpa_t, count: cython.p_int) -> p_spte:
    """get_written_sptes: the entries that shadow the guest entry at `gpa`, or NULL if another quadrant's page has them.

    A 4-byte entry at offset x is shadowed at 2x. A 4 MB directory entry is shadowed by two 2 MB ones.
    """
    offset: cython.int = gpa & (PAGE_SIZE - 1)
    count[0] = 1
    if sp.role & Role.HAS_4_BYTE_GPTE:
        offset <<= 1
        if role_level(sp.role) == 2:
            offset = (offset & ~7) << 1
            count[0] = 2
        quadrant: role_t = offset >> PAGE_SHIFT
        offset &= PAGE_SIZE - 1
        if quadrant != (sp.role & Role.QUADRANT) >> RoleShift.QUADRANT_SHIFT:
            return cython.NULL
    return cython.address(sp.spt[offset >> 3])


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def zap_written(kvm: KvmPtr, sp: ShadowPagePtr, gpa: gpa_t, gentry: u64, invalid: ListHeadPtr) -> cython.bint:
    """Clear the entries that shadow the written one; the next fault makes them anew. True: a flush is due."""
    count: cython.int = 0
    sptep: p_spte = written_sptes(sp, gpa, cython.address(count))
    if sptep == cython.NULL:
        return False
    flush: cython.bint = False
    i: cython.int
    for i in range(count):
        if is_present(sptep[i]):
            flush = True
        zap_pte(kvm, sp, sptep + i, invalid if kvm.rules.zaps_written_child else cython.NULL)
        if gentry and role_level(sp.role) > 1:
            kvm.stat.mmu_pde_zapped += 1
    return flush


def pte_write(vcpu: KvmVcpuPtr, gpa: gpa_t, bytes: cython.int) -> cython.void:
    """kvm_mmu_pte_write, mmu_pte_write_fetch_gpte: `bytes` bytes at `gpa` have been stored by the emulator."""
    kvm: KvmPtr = vcpu.kvm
    if not kvm.indirect_shadow_pages:
        return
    invalid: ListHead
    list_init(cython.address(invalid))
    # Half of an 8-byte entry: look at the whole of it.
    if bytes == 4 and vcpu.cr4 & Cr4.PAE:
        gpa &= ~cython.cast(gpa_t, 7)
        bytes = 8
    gentry: u64 = 0
    if bytes == 4 or bytes == 8:
        read_guest(kvm, vcpu.smm, gpa, cython.address(gentry), bytes)
    kvm.stat.mmu_pte_write += 1
    flush: cython.bint = False
    gfn: gfn_t = gpa >> PAGE_SHIFT
    sp: ShadowPagePtr = first_with_gptes(kvm, gfn)
    while sp != cython.NULL:
        if is_misaligned(sp, gpa, bytes) or is_flooded(sp):
            prepare_zap_page(kvm, sp, cython.address(invalid))
            kvm.stat.mmu_flooded += 1
        elif zap_written(kvm, sp, gpa, gentry, cython.address(invalid)):
            flush = True
        sp = next_with_gptes(kvm, sp.index_next, gfn)
    remote_flush_or_zap(kvm, cython.address(invalid), flush)


def write_emulated(vcpu: KvmVcpuPtr, gpa: gpa_t, data: p_u8, bytes: cython.int) -> cython.bint:
    """emulator_write_phys: store within one page, then tell the MMU. False: no writable memory there."""
    if not write_guest(vcpu.kvm, vcpu.smm, gpa, data, bytes):
        return False
    value: u64 = 0
    memcpy(cython.address(value), data, bytes if bytes < 8 else 8)
    emit(vcpu.kvm, vcpu.id, Event.PTE_WRITE, gpa, bytes, value)
    pte_write(vcpu, gpa, bytes)
    return True
