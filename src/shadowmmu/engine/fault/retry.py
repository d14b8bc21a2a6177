# SPDX-License-Identifier: GPL-2.0-only
"""An instruction that is to be emulated because of a fault: whether the guest does it again instead.

What stood in its way may be a table that is shadowed. Once it is not, the CPU can do the store itself. Linux 6.1 tries that for
whatever seldom writes tables (retry_instruction), and for what it cannot emulate (reexecute_instruction), without looking whether
it helps. Since 6.12 only a table in the way counts, and for the former only if it was shadowed (kvm_mmu_unprotect_gfn_and_retry).
"""

import cython
from cython.cimports.shadowmmu.engine.arena.state import (
    PAGE_SHIFT,
    GuestException,
    Hpa,
    KvmVcpuPtr,
    MemSlotPtr,
    SlotFlag,
    gpa_t,
    gva_t,
    u64,
)
from cython.cimports.shadowmmu.engine.entries.mmio import mmio_info_in_cache
from cython.cimports.shadowmmu.engine.guest.mmu import is_direct
from cython.cimports.shadowmmu.engine.guest.walker import gva_to_gpa
from cython.cimports.shadowmmu.engine.memory.memslots import gfn_to_memslot
from cython.cimports.shadowmmu.engine.pages.zap import unprotect_page
from cython.cimports.shadowmmu.x86.pferr import Pferr


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def looks_first(vcpu: KvmVcpuPtr) -> cython.bint:
    """Only a table in the way is a reason, and whether one is gone is seen before the guest goes on."""
    return vcpu.kvm.rules.retries_tables


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def was_let_off(vcpu: KvmVcpuPtr) -> cython.bint:
    """The same instruction was, for the same address, the last time: once more would be without end."""
    return vcpu.retry.last_rip == vcpu.retry.rip and vcpu.retry.last_addr == vcpu.retry.addr


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def note_let_off(vcpu: KvmVcpuPtr, rip: u64, addr: gva_t) -> cython.void:
    vcpu.retry.last_rip = rip
    vcpu.retry.last_addr = addr


def begin_emulation(vcpu: KvmVcpuPtr, rip: u64, addr: gva_t, user: cython.bint) -> cython.void:
    """A fault on `addr` leads to the emulator: whether its instruction may be tried again (EMULTYPE_ALLOW_RETRY_PF)."""
    vcpu.retry.rip = rip
    vcpu.retry.addr = addr
    vcpu.retry.user = user
    if not looks_first(vcpu):
        vcpu.retry.allowed = not vcpu.nested.guest_mode and not mmio_info_in_cache(vcpu, addr, is_direct(vcpu.mmu))
        return
    vcpu.retry.allowed = False
    if vcpu.retry.met_table and not was_let_off(vcpu):
        note_let_off(vcpu, 0, 0)
        vcpu.retry.allowed = not vcpu.nested.guest_mode


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def faulted_gpa(vcpu: KvmVcpuPtr, addr: gva_t, user: cython.bint, access: u64) -> gpa_t:
    """Where the guest's own tables lead, if the MMU shadows them; INVALID_PAGE: nowhere."""
    if is_direct(vcpu.mmu):
        return addr
    unheard: GuestException
    return gva_to_gpa(vcpu, vcpu.walk_mmu, addr, access | (Pferr.USER if user else 0), cython.address(unheard))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unprotect_and_retry(vcpu: KvmVcpuPtr, always: cython.bint) -> cython.bint:
    """__kvm_mmu_unprotect_gfn_and_retry, since 6.12: True if a shadow of the table there is gone."""
    found: cython.bint = False
    if vcpu.kvm.indirect_shadow_pages:
        gpa: gpa_t = faulted_gpa(vcpu, vcpu.retry.addr, vcpu.retry.user, Pferr.WRITE)
        found = gpa != Hpa.INVALID_PAGE and unprotect_page(vcpu.kvm, gpa >> PAGE_SHIFT)
    if found or always:
        note_let_off(vcpu, vcpu.retry.rip, vcpu.retry.addr)
    return found


def retry_instruction(vcpu: KvmVcpuPtr, writes_tables: cython.bint) -> cython.bint:
    """Before an instruction is emulated; `writes_tables`: it is one by which guests write them (x86_page_table_writing_insn)."""
    if looks_first(vcpu):
        return vcpu.retry.allowed and not writes_tables and unprotect_and_retry(vcpu, False)
    again: cython.bint = was_let_off(vcpu)
    note_let_off(vcpu, 0, 0)
    if not vcpu.retry.allowed or writes_tables or again:
        return False
    note_let_off(vcpu, vcpu.retry.rip, vcpu.retry.addr)
    unprotect_page(vcpu.kvm, faulted_gpa(vcpu, vcpu.retry.addr, vcpu.retry.user, Pferr.WRITE) >> PAGE_SHIFT)
    return True


def retry_failed(vcpu: KvmVcpuPtr) -> cython.bint:
    """An instruction could not be fetched, or not be emulated. Not if the store needs the table itself: the next fault would shadow it
    again; 6.1 sees that when it has unprotected it. A store that the guest's own tables do not allow is done again, to fault."""
    if not vcpu.retry.allowed:
        return False
    if looks_first(vcpu):
        if not vcpu.write_fault_to_shadow_pgtable:
            unprotect_and_retry(vcpu, True)
        return not vcpu.write_fault_to_shadow_pgtable
    gpa: gpa_t = faulted_gpa(vcpu, vcpu.retry.addr, vcpu.retry.user, Pferr.WRITE)
    if gpa == Hpa.INVALID_PAGE:
        return True
    slot: MemSlotPtr = gfn_to_memslot(vcpu.kvm, vcpu.smm, gpa >> PAGE_SHIFT)
    if slot == cython.NULL or slot.flags & SlotFlag.SLOT_READONLY:
        return False
    if is_direct(vcpu.mmu):
        if vcpu.kvm.indirect_shadow_pages:
            unprotect_page(vcpu.kvm, gpa >> PAGE_SHIFT)
        return True
    unprotect_page(vcpu.kvm, gpa >> PAGE_SHIFT)
    return not vcpu.write_fault_to_shadow_pgtable


def unprotect_in_delivery(vcpu: KvmVcpuPtr, gva: gva_t, user: cython.bint, faulted: cython.bint) -> cython.bint:
    """A fault while an event is delivered: no table is shadowed there any more, so that nothing need be emulated. True: it was, and the
    delivery is to be tried again.

    6.1 does so before it serves the fault (kvm_mmu_unprotect_page_virt), later kernels behind it, if a table was in the way of a write
    (`faulted`).
    """
    late: cython.bint = vcpu.kvm.rules.unprotects_late
    if is_direct(vcpu.mmu) or faulted != late or (late and not vcpu.retry.met_table):
        return False
    gpa: gpa_t = faulted_gpa(vcpu, gva, user, Pferr.WRITE if late else 0)
    return unprotect_page(vcpu.kvm, gpa >> PAGE_SHIFT) and late
