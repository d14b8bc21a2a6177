# SPDX-License-Identifier: GPL-2.0-only
"""What of a decoded instruction compiled code has to know to do it again: see `code_places`."""

from typing import TYPE_CHECKING, NamedTuple

from iced_x86 import Code, Instruction, InstructionInfoFactory, MemorySizeExt, Mnemonic, OpKind, Register, RegisterExt, UsedMemory

from shadowmmu.machine.emulator.code_places import Doing
from shadowmmu.machine.emulator.decode import Operands
from shadowmmu.machine.seam import MASK64
from shadowmmu.x86.vectors import BP, OF
from shadowmmu.x86.vmcb import SvmExit

if TYPE_CHECKING:
    from iced_x86._iced_x86_py import Register as AnyRegister


class Address(NamedTuple):
    """Of memory: fields as in `code_places.Address`."""

    base: int = -1
    scaled: int = -1
    scale: int = 1
    segment: int = 0
    displacement: int = 0
    mask: int = 0
    size: int = 0


class Plain(NamedTuple):
    """Fields as in `code_places.Place`."""

    doing: Doing
    number: int = 0
    size: int = 0
    register: int = -1
    high: bool = False
    value: int = 0
    memory: Address = Address()
    touched: tuple[Address, ...] = ()


_HIGH_BYTES = frozenset((Register.AH, Register.CH, Register.DH, Register.BH))
_READS = frozenset((Code.MOV_R32_CR, Code.MOV_R64_CR))
_WRITES = frozenset((Code.MOV_CR_R32, Code.MOV_CR_R64))
_LOAD_CODES = frozenset((Code.MOV_R32_RM32, Code.MOV_R64_RM64, Code.MOV_EAX_MOFFS32, Code.MOV_RAX_MOFFS64))
_SVM = {
    Mnemonic.VMRUN: SvmExit.VMRUN, Mnemonic.VMLOAD: SvmExit.VMLOAD, Mnemonic.VMSAVE: SvmExit.VMSAVE,
    Mnemonic.STGI: SvmExit.STGI, Mnemonic.CLGI: SvmExit.CLGI, Mnemonic.VMMCALL: SvmExit.VMMCALL,
}  # fmt: skip
SVM_ADDRESS_SIZES: dict[int, int] = {
    Code.VMRUNW: 2, Code.VMRUND: 4, Code.VMRUNQ: 8, Code.VMLOADW: 2, Code.VMLOADD: 4, Code.VMLOADQ: 8,
    Code.VMSAVEW: 2, Code.VMSAVED: 4, Code.VMSAVEQ: 8, Code.INVLPGAW: 2, Code.INVLPGAD: 4, Code.INVLPGAQ: 8,
}  # fmt: skip
"""Bytes of rAX that count."""
_ALONE: dict[int, Doing] = {
    Code.RDTSC: Doing.RDTSC, Code.PAUSE: Doing.PAUSE, Code.CPUID: Doing.CPUID, Code.RDMSR: Doing.MSR, Code.WRMSR: Doing.MSR,
}  # fmt: skip
"""Without operands."""
_VECTORS = {Mnemonic.INT3: BP, Mnemonic.INTO: OF}


def plain_of(operands: Operands) -> Plain:
    """UNKNOWN: it is none that compiled code does."""
    touched = tuple(_touched(operands, used) for used in InstructionInfoFactory().info(operands.instruction).used_memory())
    return _plain(operands)._replace(touched=touched)


def _touched(operands: Operands, used: UsedMemory) -> Address:
    return _address(
        operands,
        used.base,
        used.index,
        scale=used.scale,
        segment=used.segment,
        displacement=used.displacement,
        bits=8 * operands.used_address_size(used),
    )._replace(size=MemorySizeExt.size(used.memory_size))


def _plain(operands: Operands) -> Plain:
    instruction = operands.instruction
    if instruction.code in _READS:
        return _with_register(Plain(Doing.READ_CR, RegisterExt.number(instruction.op_register(1))), instruction, 0)
    if instruction.code in _WRITES:
        return _with_register(Plain(Doing.WRITE_CR, RegisterExt.number(instruction.op_register(0))), instruction, 1)
    if instruction.code in (Code.INT_IMM8, Code.INT3, Code.INTO):
        vector = _VECTORS.get(instruction.mnemonic)
        return Plain(Doing.INTERRUPT, instruction.immediate8 if vector is None else vector)
    if instruction.mnemonic in _SVM:
        return Plain(Doing.SVM, int(_SVM[instruction.mnemonic]), value=(1 << 8 * SVM_ADDRESS_SIZES.get(instruction.code, 0)) - 1)
    if instruction.code in _ALONE:
        return Plain(_ALONE[instruction.code])
    if instruction.code == Code.INVLPG_M:
        return _with_address(Plain(Doing.INVLPG), operands)
    if instruction.code in _LOAD_CODES and instruction.op_kind(1) == OpKind.MEMORY:
        return _with_register(_with_address(Plain(Doing.LOAD), operands), instruction, 0)
    is_store = instruction.mnemonic == Mnemonic.MOV and instruction.op_kind(0) == OpKind.MEMORY
    return _store(operands) if is_store else Plain(Doing.UNKNOWN)


def _store(operands: Operands) -> Plain:
    instruction, size = operands.instruction, operands.size(0)
    plain = _with_address(Plain(Doing.STORE, size=size), operands)
    if instruction.op_kind(1) != OpKind.REGISTER:
        return plain._replace(value=operands.value(1) & (1 << 8 * size) - 1)
    return _with_register(plain, instruction, 1) if operands.is_general(1) else Plain(Doing.UNKNOWN)


def _with_register(plain: Plain, instruction: Instruction, operand: int) -> Plain:
    register = instruction.op_register(operand)
    number = RegisterExt.number(RegisterExt.full_register(register))
    return plain._replace(register=number, high=register in _HIGH_BYTES, size=plain.size or RegisterExt.size(register))


def _with_address(plain: Plain, operands: Operands) -> Plain:
    instruction = operands.instruction
    return plain._replace(
        memory=_address(
            operands,
            instruction.memory_base,
            instruction.memory_index,
            scale=instruction.memory_index_scale,
            segment=instruction.memory_segment,
            displacement=instruction.memory_displacement,
            bits=8 * operands.address_size(),
        )
    )


def _address(
    operands: Operands, base: "AnyRegister", index: "AnyRegister", *, scale: int, segment: int, displacement: int, bits: int
) -> Address:
    """The displacement of an operand that is relative to RIP is already the target."""
    register, scaled = (int(RegisterExt.number(RegisterExt.full_register(one))) if RegisterExt.is_gpr(one) else -1 for one in (base, index))
    return Address(register, scaled, scale, operands.segment(segment), int(displacement) & MASK64, (1 << bits) - 1)
