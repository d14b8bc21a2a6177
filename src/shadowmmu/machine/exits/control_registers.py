# SPDX-License-Identifier: GPL-2.0-only
"""Exits for reads and writes of control registers: MOV, CLTS, LMSW, SMSW.

What a value means for paging, and which values are illegal for it, the engine knows; here are the rules that need
other registers or what CPUID offers. Source: APM vol. 2 section 3.1; SDM vol. 3 section 2.5.
"""

from collections.abc import Callable, Mapping

from iced_x86 import Code, Mnemonic

from shadowmmu.machine.emulator.decode import bitness
from shadowmmu.machine.emulator.emulation import Emulation
from shadowmmu.machine.memory.linear_memory import READ, WRITE, GuestFault
from shadowmmu.machine.seam import Exit
from shadowmmu.machine.svm.world_switch import recalc_intercepts, vmexit
from shadowmmu.machine.vcpu.control_writes import write_cr0, write_cr4
from shadowmmu.machine.vcpu.cpuid import CR4_OFFERED
from shadowmmu.machine.vcpu.processor import Processor
from shadowmmu.x86.control import Cr0
from shadowmmu.x86.vectors import GP
from shadowmmu.x86.vmcb import SvmExit

_READS = frozenset((Code.MOV_R32_CR, Code.MOV_R64_CR, Code.SMSW_RM16, Code.SMSW_R32M16, Code.SMSW_R64M16))
_WRITES = frozenset((Code.MOV_CR_R32, Code.MOV_CR_R64, Code.CLTS, Code.LMSW_RM16, Code.LMSW_R32M16, Code.LMSW_R64M16))
_MACHINE_STATUS = int(Cr0.PE | Cr0.MP | Cr0.EM | Cr0.TS)

RegisterWrite = Callable[[Processor, int, bool], bool]
"""(vCPU, value, in 64-bit code) -> done; False: #GP."""


def _write_cr0(p: Processor, value: int, in_64_bit_code: bool) -> bool:
    return write_cr0(p.vcpu, value, in_64_bit_code, p.cpu.state().cs.long)


def _write_cr2(p: Processor, value: int, _in_64_bit_code: bool) -> bool:
    p.vcpu.cr2 = value
    return True


def _write_cr3(p: Processor, value: int, _in_64_bit_code: bool) -> bool:
    return bool(p.vcpu.set_cr3(value))


def _write_cr4(p: Processor, value: int, _in_64_bit_code: bool) -> bool:
    return write_cr4(p.vcpu, value, CR4_OFFERED)


def _write_cr8(p: Processor, value: int, _in_64_bit_code: bool) -> bool:
    if value > 15:
        return False
    p.task_priority = value
    recalc_intercepts(p)  # it may let a virtual interrupt through
    return True


WRITERS: dict[int, RegisterWrite] = {0: _write_cr0, 2: _write_cr2, 3: _write_cr3, 4: _write_cr4, 8: _write_cr8}


def read_control(p: Processor, exit_: Exit) -> None:
    """MOV from CRn, or SMSW."""
    state = p.capture()
    e = Emulation(p.fetcher.decode(state, _READS), state, p.memory, p.cpu)
    vcpu = p.vcpu
    value = {0: vcpu.cr0, 2: vcpu.cr2, 3: vcpu.cr3, 4: vcpu.cr4, 8: p.task_priority}[exit_.number]
    if e.is_memory(0):
        e.memory.store(e.locate(0, WRITE, 2), value & 0xFFFF)
    else:
        e.set_register(0, value)
    p.advance(state, e.instruction)


def write_control(p: Processor, exit_: Exit, writers: Mapping[int, RegisterWrite] = WRITERS) -> None:
    """MOV to CRn, CLTS or LMSW."""
    state = p.capture()
    e = Emulation(p.fetcher.decode(state, _WRITES), state, p.memory, p.cpu)
    value = _written(p, e)
    if exit_.number == 0 and _leaves_l2(p, e.instruction.mnemonic, value):
        vmexit(p, SvmExit.CR0_SELECTIVE)
        return
    if not writers[exit_.number](p, value, bitness(state, p.vcpu.efer) == 64):
        raise GuestFault(GP)
    p.advance(state, e.instruction)


def _written(p: Processor, e: Emulation) -> int:
    """The value that the instruction writes."""
    cr0: int = p.vcpu.cr0
    if e.instruction.mnemonic == Mnemonic.CLTS:
        return cr0 & ~int(Cr0.TS)
    if e.instruction.mnemonic == Mnemonic.LMSW:
        source = e.memory.load(e.locate(0, READ, 2)) if e.is_memory(0) else e.value(0)
        keep = ~_MACHINE_STATUS | cr0 & int(Cr0.PE)  # LMSW sets PE, it does not clear it
        return cr0 & keep | source & _MACHINE_STATUS
    return e.value(1)


def _leaves_l2(p: Processor, mnemonic: int, value: int) -> bool:
    """L1 intercepts writes of CR0 that change more than TS and MP, and LMSW whatever it writes; CLTS is none of them. APM vol. 2
    section 15.9."""
    if p.nested is None or mnemonic == Mnemonic.CLTS or not p.nested.wants(SvmExit.CR0_SELECTIVE):
        return False
    return mnemonic == Mnemonic.LMSW or bool((value ^ p.vcpu.cr0) & ~(Cr0.TS | Cr0.MP))
