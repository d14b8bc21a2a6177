# SPDX-License-Identifier: GPL-2.0-only
"""The guest's registers out of the saved context, in the CPU's hook."""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.libc.string import memcpy
from cython.cimports.shadowmmu.engine.arena.state import p_u8
from cython.cimports.shadowmmu.machine.cpu.registers import FS, GS, RegisterPtr, TablePtr
from cython.cimports.shadowmmu.machine.cpu.svm_entry import read_hidden, restore_given
from cython.cimports.shadowmmu.machine.vcpu.quick_state import CPL, SEGMENT_BYTES, next_rip
from cython.cimports.shadowmmu.x86.control import Rflags


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def take_segment(quick: QuickPtr, number: cython.int, into: RegisterPtr) -> cython.void:
    at: p_u8 = quick.segments + SEGMENT_BYTES * number
    flags: uint32_t = cython.cast(cython.pointer(uint32_t), at + 20)[0]
    into.selector = cython.cast(cython.pointer(uint32_t), at)[0] & 0xFFFF
    into.base = cython.cast(cython.pointer(uint64_t), at + 8)[0]
    into.limit = cython.cast(cython.pointer(uint32_t), at + 16)[0]
    into.attr = (flags >> 8 & 0xFF) | (flags >> 12 & 0xF00)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def take_table(quick: QuickPtr, number: cython.int, into: TablePtr) -> cython.void:
    at: p_u8 = quick.segments + SEGMENT_BYTES * number
    into.base = cython.cast(cython.pointer(uint64_t), at + 8)[0]
    into.limit = cython.cast(cython.pointer(uint32_t), at + 16)[0]


def take_registers(quick: QuickPtr, into: RegistersPtr) -> cython.void:
    """All of them, without an interrupt shadow: `quick_state.look` has read EFLAGS, and seen that there is none."""
    i: cython.int
    memcpy(into.gpr, quick.gpr, 128)
    for i in range(6):
        take_segment(quick, i, cython.address(into.segments[i]))
    restore_given(quick.entry, FS, cython.address(into.segments[FS]))
    restore_given(quick.entry, GS, cython.address(into.segments[GS]))
    take_segment(quick, 6, cython.address(into.ldtr))
    take_segment(quick, 7, cython.address(into.tr))
    take_table(quick, 8, cython.address(into.gdtr))
    take_table(quick, 9, cython.address(into.idtr))
    into.rip, into.rflags, into.cpl, into.interrupt_shadow = quick.rip[0], quick.flags, quick.mode[0] & CPL, False
    into.dr6, into.dr7, into.kernel_gs_base = quick.debug[0], quick.debug[1], quick.kernel_gs_base[0]
    read_hidden(quick.entry, into)


def take_registers_behind(quick: QuickPtr, place: PlacePtr, into: RegistersPtr) -> cython.void:
    """Those with which the guest goes on behind the instruction."""
    take_registers(quick, into)
    into.rip = next_rip(quick, place)
    into.rflags &= ~cython.cast(uint64_t, Rflags.RF)
