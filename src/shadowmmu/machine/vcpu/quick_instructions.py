# SPDX-License-Identifier: GPL-2.0-only
"""Instructions that are done in the CPU's hook, in their plain forms: `exits.control_registers` and `exits.handlers` do all of them,
by the same functions of the engine."""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.shadowmmu.engine.arena.state import KvmVcpuPtr
from cython.cimports.shadowmmu.engine.cpu.registers import set_cr3
from cython.cimports.shadowmmu.engine.fault.invlpg import kvm_invlpg
from cython.cimports.shadowmmu.machine.cpu.registers import RAX, RBX, RCX, RDX
from cython.cimports.shadowmmu.machine.emulator.code_places import Doing, PlacePtr, address_of, operand_value, set_register
from cython.cimports.shadowmmu.machine.vcpu.control_writes import load_cr0, load_cr4
from cython.cimports.shadowmmu.machine.vcpu.cpuid_leaves import CpuidLeaf, find_leaf
from cython.cimports.shadowmmu.machine.vcpu.quick_delivery import deliver_interrupt
from cython.cimports.shadowmmu.machine.vcpu.quick_devices import set_task_priority, task_priority
from cython.cimports.shadowmmu.machine.vcpu.quick_state import (
    Served,
    bits_of_code,
    came_to,
    complete,
    has_long_code,
    instruction_at_rip,
    look,
    segment_base,
)
from cython.cimports.shadowmmu.machine.vcpu.svm_state import is_wanted
from cython.cimports.shadowmmu.x86.control import Cr4, Efer
from cython.cimports.shadowmmu.x86.vmcb_layout import (
    CPUID_EXIT,
    CR0_SELECTIVE_EXIT,
    EXCEPTION_EXIT,
    INVLPG_EXIT,
    PAUSE_EXIT,
    RDTSC_EXIT,
    SOFTWARE_INTERRUPT_EXIT,
)


def serve_instruction(engine: cython.p_void, quick: QuickPtr, code: uint32_t) -> cython.bint:
    """Do the instruction that has exited with `code`, and enter the guest behind it; False: it is left to the loop."""
    doing: Doing = doing_of(code)
    if doing == Doing.UNKNOWN or (quick.svm.runs and may_be_wanted(quick, code)):
        return False
    place: PlacePtr = instruction_at_rip(quick, doing) if look(engine, quick) else cython.NULL
    if place != cython.NULL and quick.svm.runs and (doing == Doing.RDTSC or doing == Doing.INTERRUPT):
        place = instruction_at_rip(quick, doing)  # L1 is asked by what it is, so it has been fetched for that, too
    if place == cython.NULL:
        return False
    if doing == Doing.INTERRUPT:
        return interrupt(engine, quick, place)
    if not do(quick, place, code & 0xF):
        return False
    complete(engine, quick, place)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def doing_of(code: uint32_t) -> Doing:
    """By the exit codes of APM vol. 2 appendix C."""
    if code < 0x10:
        return Doing.READ_CR
    if code < 0x20:
        return Doing.WRITE_CR
    if code == SOFTWARE_INTERRUPT_EXIT:
        return Doing.INTERRUPT
    if code == RDTSC_EXIT:
        return Doing.RDTSC
    if code == PAUSE_EXIT:
        return Doing.PAUSE
    if code == CPUID_EXIT:
        return Doing.CPUID
    return Doing.INVLPG if code == INVLPG_EXIT else Doing.UNKNOWN


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def interrupt(engine: cython.p_void, quick: QuickPtr, place: PlacePtr) -> cython.bint:
    if not deliver_interrupt(engine, quick, place.number, quick.rip[0] + place.length):
        return False
    came_to(quick, Served.INTERRUPT)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def may_be_wanted(quick: QuickPtr, code: uint32_t) -> cython.bint:
    """By L1. INT3 and INTO are intercepted as their exceptions."""
    if code == SOFTWARE_INTERRUPT_EXIT and (is_wanted(quick.svm, EXCEPTION_EXIT + 3) or is_wanted(quick.svm, EXCEPTION_EXIT + 4)):
        return True
    return is_wanted(quick.svm, code)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def do(quick: QuickPtr, place: PlacePtr, number: uint32_t) -> cython.bint:
    if place.doing == Doing.INVLPG:
        return invlpg(quick, place)
    if place.doing == Doing.CPUID:
        return cpuid(quick)
    if place.doing == Doing.RDTSC:
        return read_time(quick)
    if place.doing == Doing.PAUSE:
        return pause(quick)
    if place.number != number:
        return False
    return read_cr(quick, place) if place.doing == Doing.READ_CR else write_cr(quick, place)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_cr(quick: QuickPtr, place: PlacePtr) -> cython.bint:
    vcpu: KvmVcpuPtr = quick.vcpu
    values: uint64_t[5] = [vcpu.cr0, 0, vcpu.cr2, vcpu.cr3, vcpu.cr4]
    if place.number != TASK_PRIORITY and (place.number >= 5 or place.number == 1):
        return False
    set_register(place, quick.gpr, task_priority(quick) if place.number == TASK_PRIORITY else values[place.number])
    came_to(quick, Served.CR_READ)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def write_cr(quick: QuickPtr, place: PlacePtr) -> cython.bint:
    """Not CR8 of an L2, which may let its virtual interrupt through, and not its CR0 if L1 looks at what is written."""
    value: uint64_t = operand_value(place, quick.gpr)
    if place.size == 4:
        value = cython.cast(uint32_t, value)
    if not load(quick, place.number, value):
        return False
    came_to(quick, Served.CR_WRITE)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def load(quick: QuickPtr, number: cython.int, value: uint64_t) -> cython.bint:
    """False, too, where it is illegal: nothing has changed."""
    if number == 0:
        if quick.svm.runs and is_wanted(quick.svm, CR0_SELECTIVE_EXIT):
            return False
        return load_cr0(quick.vcpu, value, bits_of_code(quick) == 64, has_long_code(quick))
    if number == 2:
        quick.vcpu.cr2 = value
        return True
    if number == TASK_PRIORITY:
        if quick.svm.runs or value > HIGHEST_PRIORITY:
            return False
        set_task_priority(quick, value)
        return True
    if number == 4:
        return load_cr4(quick.vcpu, value, quick.svm.cr4_offered)
    return number == 3 and set_cr3(quick.vcpu, value)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def invlpg(quick: QuickPtr, place: PlacePtr) -> cython.bint:
    vcpu: KvmVcpuPtr = quick.vcpu
    gva: uint64_t = address_of(cython.address(place.memory), quick.gpr, segment_base(quick, place.memory.segment)) & quick.wrap
    if not vcpu.efer & Efer.LMA or is_canonical(gva, 57 if vcpu.cr4 & Cr4.LA57 else 48):
        kvm_invlpg(vcpu, gva)
    came_to(quick, Served.INVLPG)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_time(quick: QuickPtr) -> cython.bint:
    """Of the machine's clock, behind this exit."""
    came_to(quick, Served.RDTSC)
    now: uint64_t = quick.apart + quick.executed[0] + quick.served * quick.ticks + quick.svm.tsc_offset
    quick.gpr[RAX], quick.gpr[RDX] = cython.cast(uint32_t, now), now >> 32
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def pause(quick: QuickPtr) -> cython.bint:
    """Others are to have their turn, if any wants it."""
    if not quick.alone:
        return False
    came_to(quick, Served.PAUSE)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def cpuid(quick: QuickPtr) -> cython.bint:
    """Not of a leaf that is not there: it is told who asks for one."""
    leaf: CpuidLeaf
    number: uint32_t = cython.cast(uint32_t, quick.gpr[RAX])
    if not find_leaf(quick.leaves, number, cython.cast(uint32_t, quick.gpr[RCX]), quick.vcpu.cr4, quick.apic_on, cython.address(leaf)):
        return False
    quick.gpr[RAX], quick.gpr[RCX], quick.gpr[RDX], quick.gpr[RBX] = leaf.eax, leaf.ecx, leaf.edx, leaf.ebx
    came_to(quick, Served.CPUID)
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_canonical(gva: uint64_t, bits: cython.int) -> cython.bint:
    upper: uint64_t = gva >> (bits - 1)
    return upper == 0 or upper == cython.cast(uint64_t, -1) >> (bits - 1)
