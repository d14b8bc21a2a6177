# SPDX-License-Identifier: GPL-2.0-only
"""The entry behind an exit that was served in the CPU's hook (`loop.entry`): mostly the guest goes on as it is.

With other control registers than CR3, another root of nested tables, or after a world switch it is entered anew. Where the CPU has to
stop first, it stops with the registers that the next run is to enter it with.
"""

import cython
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.shadowmmu.engine.arena.state import KvmVcpuPtr
from cython.cimports.shadowmmu.engine.cpu.requests import prepare_entry
from cython.cimports.shadowmmu.machine.cpu.svm_entry import enter_anew
from cython.cimports.shadowmmu.machine.memory.translations import drop_all
from cython.cimports.shadowmmu.machine.real_controls import find_controls
from cython.cimports.shadowmmu.machine.vcpu.quick_registers import take_registers
from cython.cimports.shadowmmu.machine.vcpu.quick_state import INTERRUPT_SHADOW
from cython.cimports.shadowmmu.x86.control import Cr0, Efer

ALL_BITS = cython.declare(uint64_t, 0xFFFFFFFFFFFFFFFF)
LOW_BITS = cython.declare(uint64_t, 0xFFFFFFFF)


def address_bits(controls: ControlsPtr) -> uint64_t:
    """Of a linear address."""
    return ALL_BITS if controls.efer & Efer.LMA else LOW_BITS


def go_on(engine: cython.p_void, quick: QuickPtr) -> cython.void:
    """The CPU stops if the guest cannot be entered, or its L1 goes on no longer: the loop finds that out."""
    vcpu: KvmVcpuPtr = quick.vcpu
    if quick.l1_is_lost:
        stop(engine, quick)
        return
    quick.entered = prepare_entry(vcpu)
    if quick.entered:
        stop(engine, quick)
        return
    flush: cython.bint = vcpu.flush_hw_all or vcpu.flush_gva_count
    if flush:
        vcpu.flush_hw_all, vcpu.flush_gva_count = False, 0
        drop_all(quick.tlb)
    take_controls(engine, quick, flush)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def take_controls(engine: cython.p_void, quick: QuickPtr, flush: cython.bint) -> cython.void:
    wanted: ControlRegisters
    now: ControlsPtr = cython.address(quick.entry.controls)
    find_controls(quick.vcpu, cython.address(wanted))
    same: cython.bint = wanted.cr0 == now.cr0 and wanted.cr4 == now.cr4 and wanted.efer == now.efer and wanted.ncr3 == now.ncr3
    load: cython.bint = flush or quick.reload or wanted.cr3 != now.cr3
    if not quick.anew and same and (not load or wanted.cr0 & Cr0.PG):
        now.cr3 = wanted.cr3
        if load:  # which drops every translation
            quick.reg_write(engine, quick.root_register, cython.address(now.cr3))
    elif quick.anew or can_take_registers(engine, quick):
        now[0] = wanted
    else:
        quick.vcpu.flush_hw_all = flush
        quick.stop(engine)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def can_take_registers(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """The guest is to be entered anew as it is; False: in an interrupt shadow, which the loop knows of."""
    if quick.mode[0] & INTERRUPT_SHADOW:
        return False
    quick.reg_read(engine, quick.flags_register, cython.address(quick.flags))
    take_registers(quick, cython.address(quick.registers))
    quick.anew = True
    return True


def stop(engine: cython.p_void, quick: QuickPtr) -> cython.void:
    """Before the guest's next instruction."""
    quick.to_enter = quick.anew
    quick.stop(engine)


def finish(engine: cython.p_void, quick: QuickPtr) -> cython.void:
    """The hook is done: the CPU goes on."""
    quick.wrap = address_bits(cython.address(quick.entry.controls))
    if quick.anew and not quick.to_enter:
        enter_anew(engine, quick.entry, cython.address(quick.registers))
