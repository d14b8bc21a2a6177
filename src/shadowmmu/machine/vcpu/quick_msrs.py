# SPDX-License-Identifier: GPL-2.0-only
"""RDMSR and WRMSR in the CPU's hook: `msr.Msrs`, of registers that change no mode, and of values that they may hold.

What is illegal is left to the loop before the instruction is fetched, as there is nothing behind it.
"""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.shadowmmu.machine.cpu.registers import RAX, RCX, RDX, RegistersPtr
from cython.cimports.shadowmmu.machine.emulator.code_places import Doing, PlacePtr
from cython.cimports.shadowmmu.machine.vcpu.quick_devices import QuickDevices, give_up, notice
from cython.cimports.shadowmmu.machine.vcpu.quick_registers import take_registers, take_registers_behind
from cython.cimports.shadowmmu.machine.vcpu.quick_state import Served, came_to, complete, instruction_at_rip, look
from cython.cimports.shadowmmu.machine.vcpu.register_msrs import is_register, is_switched, may_hold, register_of, write_register
from cython.cimports.shadowmmu.machine.vcpu.svm_state import is_wanted
from cython.cimports.shadowmmu.x86.vmcb_layout import MSR_EXIT


def serve_msr(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """False: it is left to the loop."""
    index: uint32_t = cython.cast(uint32_t, quick.gpr[RCX])
    writes: cython.bint = quick.error_code[0] & 1
    if (quick.svm.runs and is_wanted(quick.svm, MSR_EXIT)) or not look(engine, quick):
        return False
    if is_register(index):
        return reach_register(engine, quick, index, writes)
    return not (writes and index == APIC_BASE) and reach_plain(engine, quick, index, writes)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def written(quick: QuickPtr) -> uint64_t:
    return quick.gpr[RDX] << 32 | cython.cast(uint32_t, quick.gpr[RAX])


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def give(quick: QuickPtr, value: uint64_t) -> cython.void:
    quick.gpr[RAX], quick.gpr[RDX] = cython.cast(uint32_t, value), value >> 32


def reach_register(engine: cython.p_void, quick: QuickPtr, index: uint32_t, writes: cython.bint) -> cython.bint:
    """The guest is entered anew with one that the CPU has."""
    registers: RegistersPtr = cython.address(quick.registers)
    if writes and not may_hold(quick.svm, index, written(quick)):
        return False
    place: PlacePtr = instruction_at_rip(quick, Doing.MSR)
    if place == cython.NULL:
        return False
    came_to(quick, Served.MSR)
    if writes and not is_switched(index):
        take_registers_behind(quick, place, registers)
        write_register(quick.svm, registers, index, written(quick))
        quick.anew = True
        return True
    if writes:
        write_register(quick.svm, registers, index, written(quick))
    else:
        take_registers(quick, registers)
        give(quick, register_of(quick.svm, registers, index)[0])
    complete(engine, quick, place)
    return True


def reach_plain(engine: cython.p_void, quick: QuickPtr, index: uint32_t, writes: cython.bint) -> cython.bint:
    """Once the exit has counted: the APIC's timer looks at the clock."""
    place: PlacePtr = cython.NULL
    with cython.gil:
        value: object = written(quick) if writes else None
        try:
            plain: object = cython.cast(QuickDevices, quick.devices).msrs.plain(index)
            if plain is not None and plain.allows(index, value):
                place = instruction_at_rip(quick, Doing.MSR)
            if place == cython.NULL:
                return False
            came_to(quick, Served.MSR)
            if writes:
                plain.write(index, value)
                notice(quick)
            else:
                give(quick, plain.read(index))
        except BaseException as error:
            give_up(quick, error)
    complete(engine, quick, place)
    return True
