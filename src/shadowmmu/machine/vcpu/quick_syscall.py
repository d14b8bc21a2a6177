# SPDX-License-Identifier: GPL-2.0-only
"""SYSCALL in the CPU's hook of that instruction, which is called in the midst of it: behind the hook the CPU steps over what is at RIP."""

import cython
from cython.cimports.libc.stdint import uint8_t, uint64_t
from cython.cimports.shadowmmu.engine.arena.state import PAGE_SIZE, Hpa, KvmVcpuPtr, p_u8
from cython.cimports.shadowmmu.engine.face.host_access import frame_memory
from cython.cimports.shadowmmu.machine.cpu.registers import CS, R11, RCX, RegistersPtr
from cython.cimports.shadowmmu.machine.cpu.stop_request import settle
from cython.cimports.shadowmmu.machine.emulator.code_places import LONGEST
from cython.cimports.shadowmmu.machine.vcpu.delivery_state import DeliveryPtr
from cython.cimports.shadowmmu.machine.vcpu.quick_delivery import TO_FETCH, put_registers
from cython.cimports.shadowmmu.machine.vcpu.quick_registers import take_registers
from cython.cimports.shadowmmu.machine.vcpu.quick_state import Served, came_to, look, segment_base
from cython.cimports.shadowmmu.machine.vcpu.syscall import enter_kernel
from cython.cimports.shadowmmu.x86.control import Cr0, Efer, Rflags


def serve_syscall(engine: cython.p_void, quick: QuickPtr) -> cython.bint:
    """Where the entry behind it has nothing to do. False: it is left to the loop."""
    vcpu: KvmVcpuPtr = quick.vcpu
    d: DeliveryPtr = cython.address(quick.delivery)
    registers: RegistersPtr = cython.address(d.registers)
    if not quick.delivers or vcpu.requests or vcpu.mmu.root.hpa == Hpa.INVALID_PAGE or vcpu.flush_hw_all:
        return False
    quick.save(engine, quick.context)
    settle(quick.request)
    length: uint8_t = length_of_syscall(engine, quick)
    if vcpu.kvm.tdp:
        vcpu.cr3 = quick.entry.controls.cr3 = quick.cr3[0]
    if not length or quick.cr3[0] != quick.entry.controls.cr3 or not look(engine, quick):
        return False
    if not vcpu.cr0 & Cr0.PE or quick.flags & Rflags.VM:
        return False
    take_registers(quick, registers)
    d.before, d.long_mode = d.registers, (vcpu.efer & Efer.LMA) != 0
    registers.rip += length
    if not enter_kernel(quick.svm, registers):
        return False
    registers.rip -= length
    quick.gpr[RCX], quick.gpr[R11] = registers.gpr[RCX], registers.gpr[R11]
    put_registers(engine, quick)
    came_to(quick, Served.SYSCALL)
    return True


def length_of_syscall(engine: cython.p_void, quick: QuickPtr) -> uint8_t:
    """With its prefixes; 0: it may lie in two pages."""
    at: uint64_t = 0
    linear: uint64_t = (segment_base(quick, CS) + quick.rip[0]) & quick.wrap
    room: uint64_t = min(PAGE_SIZE - (linear & (PAGE_SIZE - 1)), cython.cast(uint64_t, LONGEST))
    if room < 2 or quick.translate(engine, linear, TO_FETCH, cython.address(at)):
        return 0
    code: p_u8 = frame_memory(quick.vcpu.kvm, at, room)
    number: uint8_t
    for number in range(cython.cast(uint8_t, room) - 1):
        if code != cython.NULL and code[number] == 0x0F:
            return number + 2 if code[number + 1] == 0x05 else 0
    return 0
