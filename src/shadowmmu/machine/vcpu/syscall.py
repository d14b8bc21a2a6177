# SPDX-License-Identifier: GPL-2.0-only
"""SYSCALL. Source: APM vol. 3."""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.shadowmmu.machine.cpu.registers import CS, R11, RCX, SS, RegisterPtr, state_of, take_state
from cython.cimports.shadowmmu.x86.control import Efer, Rflags

LOW = cython.declare(uint64_t, 0xFFFFFFFF)
# Flat segments of ring 0.
CODE_64 = cython.declare(uint32_t, 0xA9B)
CODE_32 = cython.declare(uint32_t, 0xC9B)
DATA = cython.declare(uint32_t, 0xC93)
LONG = cython.declare(uint32_t, 0x200)


def enter_kernel(svm: SvmPtr, registers: RegistersPtr) -> cython.bint:
    """`registers` are those behind the instruction; then those at its target. False: #UD."""
    efer: uint64_t = svm.vcpu.efer
    selector: uint32_t = registers.star >> 32 & 0xFFFC
    clear: uint64_t = Rflags.VM | Rflags.INTR | Rflags.RF
    if not efer & Efer.SCE:
        return False
    registers.gpr[RCX] = registers.rip
    if efer & Efer.LMA:
        registers.gpr[R11] = registers.rflags & ~cython.cast(uint64_t, Rflags.RF)
        clear = svm.sfmask | Rflags.RF
        registers.rip = svm.lstar if registers.segments[CS].attr & LONG else svm.cstar
    else:
        registers.gpr[RCX] &= LOW
        registers.rip = registers.star & LOW
    registers.rflags = (registers.rflags & ~clear) | Rflags.FIXED
    load_flat(cython.address(registers.segments[CS]), selector, CODE_64 if efer & Efer.LMA else CODE_32)
    load_flat(cython.address(registers.segments[SS]), selector + 8, DATA)
    registers.cpl = 0
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load_flat(segment: RegisterPtr, selector: uint32_t, attr: uint32_t) -> cython.void:
    segment.selector, segment.attr, segment.limit, segment.base = selector & 0xFFFF, attr, LOW, 0


def syscall(svm: SvmState, state: object):
    """The state at the target; `state` is that behind the instruction. None: #UD."""
    registers: Registers
    take_state(cython.address(registers), state)
    return state_of(cython.address(registers)) if enter_kernel(cython.address(svm.svm), cython.address(registers)) else None
