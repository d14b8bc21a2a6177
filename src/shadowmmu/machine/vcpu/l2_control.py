# SPDX-License-Identifier: GPL-2.0-only
"""L1's VMCB: what it asks of VMRUN, the state of L2, and what VMRUN finds illegal there: the guest is not entered, the exit code is
VMEXIT_INVALID.

What is the MMU's of it - CR0, CR4, long mode, nested CR3 - the engine judges (`engine/cpu/legal.py`).

Sources: APM vol. 2 sections 15.5.1 (state), 15.20 (events), 15.25.4 (nested paging).
"""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.shadowmmu.engine.arena.state import p_u8
from cython.cimports.shadowmmu.engine.cpu.legal import NestedPaging, is_valid_l2
from cython.cimports.shadowmmu.machine.cpu.registers import CS
from cython.cimports.shadowmmu.machine.cpu.vmcb_page import (
    get_intercepts,
    get_segment,
    get_table,
    get_u8,
    get_u32,
    get_u64,
    put_segment,
    put_table,
    put_u8,
    put_u64,
)
from cython.cimports.shadowmmu.x86.control import Cr0, Efer
from cython.cimports.shadowmmu.x86.vmcb_layout import Vmcb

FLAT_BASE = cython.declare(uint64_t, 0xFFFFFFFF)
VMRUN = cython.declare(uint32_t, 1)
IOIO = cython.declare(uint32_t, 1 << 27)
MSR = cython.declare(uint32_t, 1 << 28)
IOPM_SIZE = cython.declare(uint64_t, 3 << 12)
MSRPM_SIZE = cython.declare(uint64_t, 2 << 12)
VALID = cython.declare(uint64_t, 1 << 31)
LONG_AND_BIG = cython.declare(uint32_t, 0x600)


def read_control(page: p_u8, control: ControlPtr) -> cython.void:
    """The control area."""
    get_intercepts(page, cython.address(control.asked))
    control.iopm_base = get_u64(page, Vmcb.IOPM_BASE) & ~cython.cast(uint64_t, 0xFFF)
    control.msrpm_base = get_u64(page, Vmcb.MSRPM_BASE) & ~cython.cast(uint64_t, 0xFFF)
    control.tsc_offset = get_u64(page, Vmcb.TSC_OFFSET)
    control.asid, control.tlb_control = get_u32(page, Vmcb.GUEST_ASID), get_u8(page, Vmcb.TLB_CONTROL)
    control.v_intr = get_u64(page, Vmcb.V_INTR)
    control.interrupt_shadow, control.nested_paging = get_u8(page, Vmcb.INTERRUPT_SHADOW) & 1, get_u8(page, Vmcb.NESTED_PAGING) & 1
    control.event_inj, control.ncr3 = get_u64(page, Vmcb.EVENT_INJ), get_u64(page, Vmcb.N_CR3)


def read_save(page: p_u8, save: SavePtr) -> cython.void:
    """The state save area, as far as VMRUN loads it. ES, CS, SS and DS have a base of 32 bits (APM vol. 2 section 15.5.1)."""
    i: cython.int
    for i in range(4):
        get_segment(page, Vmcb.ES + 16 * i, cython.address(save.segments[i]))
        save.segments[i].base &= FLAT_BASE
    get_table(page, Vmcb.GDTR, cython.address(save.gdtr))
    get_table(page, Vmcb.IDTR, cython.address(save.idtr))
    save.cpl = get_u8(page, Vmcb.CPL) & 3
    save.efer, save.cr4, save.cr3, save.cr0 = (
        get_u64(page, Vmcb.EFER), get_u64(page, Vmcb.CR4), get_u64(page, Vmcb.CR3), get_u64(page, Vmcb.CR0)
    )  # fmt: skip
    save.dr7, save.dr6, save.rflags, save.rip = (
        get_u64(page, Vmcb.DR7), get_u64(page, Vmcb.DR6), get_u64(page, Vmcb.RFLAGS), get_u64(page, Vmcb.RIP)
    )  # fmt: skip
    save.rsp, save.rax, save.cr2, save.g_pat = (
        get_u64(page, Vmcb.RSP), get_u64(page, Vmcb.RAX), get_u64(page, Vmcb.CR2), get_u64(page, Vmcb.G_PAT)
    )  # fmt: skip


def write_save(page: p_u8, save: SavePtr) -> cython.void:
    """What #VMEXIT leaves in the state save area."""
    i: cython.int
    for i in range(4):
        put_segment(page, Vmcb.ES + 16 * i, cython.address(save.segments[i]))
    put_table(page, Vmcb.GDTR, cython.address(save.gdtr))
    put_table(page, Vmcb.IDTR, cython.address(save.idtr))
    put_u8(page, Vmcb.CPL, save.cpl)
    put_u64(page, Vmcb.EFER, save.efer)
    put_u64(page, Vmcb.CR4, save.cr4)
    put_u64(page, Vmcb.CR3, save.cr3)
    put_u64(page, Vmcb.CR0, save.cr0)
    put_u64(page, Vmcb.DR7, save.dr7)
    put_u64(page, Vmcb.DR6, save.dr6)
    put_u64(page, Vmcb.RFLAGS, save.rflags)
    put_u64(page, Vmcb.RIP, save.rip)
    put_u64(page, Vmcb.RSP, save.rsp)
    put_u64(page, Vmcb.RAX, save.rax)
    put_u64(page, Vmcb.CR2, save.cr2)
    put_u64(page, Vmcb.G_PAT, save.g_pat)


# --- what is legal


def is_legal(svm: SvmPtr, save: SavePtr) -> cython.bint:
    """Whether VMRUN goes on with the control area that was read last. L1 still runs."""
    control: ControlPtr = cython.address(svm.control)
    paging: NestedPaging = NestedPaging.NESTED_NPT if control.nested_paging else NestedPaging.NESTED_NONE
    if not is_legal_control(svm) or not is_legal_event(control.event_inj) or not is_legal_state(svm, save):
        return False
    if not is_valid_l2(svm.vcpu, save.cr0, save.cr4, save.efer, paging, control.ncr3):
        return False
    return not control.nested_paging or is_legal_pat(save.g_pat)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_legal_control(svm: SvmPtr) -> cython.bint:
    control: ControlPtr = cython.address(svm.control)
    end: uint64_t = cython.cast(uint64_t, 1) << svm.vcpu.kvm.maxphyaddr
    if not control.asked.second & VMRUN or not control.asid:
        return False
    if control.tlb_control not in (0, 1, 3, 7):
        return False
    if control.asked.first & IOIO and (control.iopm_base >= end or control.iopm_base + IOPM_SIZE > end):
        return False
    return not (control.asked.first & MSR and (control.msrpm_base >= end or control.msrpm_base + MSRPM_SIZE > end))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_legal_event(info: uint64_t) -> cython.bint:
    kind: cython.int = info >> 8 & 7
    vector: cython.int = info & 0xFF
    if not info & VALID or kind == 0 or kind == EventType.NMI_EVENT or kind == EventType.SOFTWARE_EVENT:
        return True
    return kind == EventType.EXCEPTION_EVENT and vector != 2 and vector < 32


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_legal_state(svm: SvmPtr, save: SavePtr) -> cython.bint:
    if not save.efer & Efer.SVME or save.efer & ~svm.efer_offered or save.cr4 & ~svm.cr4_offered:
        return False
    if save.dr6 >> 32 or save.dr7 >> 32 or save.cr3 >> svm.vcpu.kvm.maxphyaddr:
        return False
    return not (save.efer & Efer.LME and save.cr0 & Cr0.PG and (save.segments[CS].attr & LONG_AND_BIG) == LONG_AND_BIG)


def is_legal_pat(value: uint64_t) -> cython.bint:
    """Each byte is a memory type."""
    i: cython.int
    for i in range(8):
        kind: cython.int = value >> 8 * i & 0xFF
        if kind > 7 or kind == 2 or kind == 3:
            return False
    return True
