# SPDX-License-Identifier: GPL-2.0-only
"""Model-specific registers that the CPU goes by: bases, and where system calls lead. The loop reads and writes those of a state, and the
CPU's hook those of the guest as it is."""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.shadowmmu.machine.cpu.registers import FS, GS, Registers, RegistersPtr, state_of, take_state
from cython.cimports.shadowmmu.machine.vcpu.l2_control import is_legal_pat
from cython.cimports.shadowmmu.machine.vcpu.svm_state import SvmPtr, SvmState

ALL = cython.declare(uint64_t, 0xFFFFFFFFFFFFFFFF)
LOW = cython.declare(uint64_t, 0xFFFFFFFF)


def is_switched(index: uint32_t) -> cython.bint:
    """It is neither in `seam.State` nor the MMU's: `svm_state` keeps it."""
    return index == Msr.PAT or Msr.LSTAR <= index <= Msr.SFMASK


def is_register(index: uint32_t) -> cython.bint:
    if is_switched(index) or index == Msr.STAR:
        return True
    return Msr.SYSENTER_CS <= index <= Msr.SYSENTER_EIP or Msr.FS_BASE <= index <= Msr.KERNEL_GS_BASE


def may_hold(svm: SvmPtr, index: uint32_t, value: uint64_t) -> cython.bint:
    """A linear address must be canonical in the widest paging mode that the CPU has."""
    upper: uint64_t = value >> (svm.base_bits - 1)
    if index == Msr.PAT:
        return is_legal_pat(value)
    if index in (Msr.STAR, Msr.SFMASK, Msr.SYSENTER_CS):
        return True
    return upper == 0 or upper == ALL >> (svm.base_bits - 1)


def register_of(svm: SvmPtr, registers: RegistersPtr, index: uint32_t) -> cython.pointer(uint64_t):
    if index == Msr.PAT:
        return cython.address(svm.pat)
    if index == Msr.STAR:
        return cython.address(registers.star)
    if index == Msr.LSTAR:
        return cython.address(svm.lstar)
    if index == Msr.CSTAR:
        return cython.address(svm.cstar)
    if index == Msr.SFMASK:
        return cython.address(svm.sfmask)
    if index == Msr.SYSENTER_CS:
        return cython.address(registers.sysenter_cs)
    if index == Msr.SYSENTER_ESP:
        return cython.address(registers.sysenter_esp)
    if index == Msr.SYSENTER_EIP:
        return cython.address(registers.sysenter_eip)
    if index == Msr.KERNEL_GS_BASE:
        return cython.address(registers.kernel_gs_base)
    return cython.address(registers.segments[FS if index == Msr.FS_BASE else GS].base)


def write_register(svm: SvmPtr, registers: RegistersPtr, index: uint32_t, value: uint64_t) -> cython.void:
    """A value that it may hold."""
    register_of(svm, registers, index)[0] = value & LOW if index in (Msr.SFMASK, Msr.SYSENTER_CS) else value


def has(index: uint32_t):
    return bool(is_register(index))


def read(svm: SvmState, state: object, index: uint32_t):
    registers: Registers
    take_state(cython.address(registers), state)
    return register_of(cython.address(svm.svm), cython.address(registers), index)[0]


def write(svm: SvmState, state: object, index: uint32_t, value: uint64_t):
    """Changes `state`. False: it cannot hold that."""
    registers: Registers
    if not may_hold(cython.address(svm.svm), index, value):
        return False
    take_state(cython.address(registers), state)
    write_register(cython.address(svm.svm), cython.address(registers), index, value)
    if not is_switched(index):
        state.system = state_of(cython.address(registers)).system
    return True
