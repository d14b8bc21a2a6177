# SPDX-License-Identifier: GPL-2.0-only
"""Handlers of moves and arithmetic."""

from iced_x86 import Mnemonic

from shadowmmu.machine.emulator import alu
from shadowmmu.machine.emulator.decode import set_general
from shadowmmu.machine.emulator.emulation import Emulation, NotEmulated, handles
from shadowmmu.machine.emulator.segment_load import load_segment
from shadowmmu.machine.memory.linear_memory import READ, WRITE, GuestFault
from shadowmmu.machine.seam import Reg
from shadowmmu.x86.vectors import GP

# --- moves


@handles(Mnemonic.MOV, Mnemonic.MOVNTI)
def _mov(e: Emulation) -> None:
    if e.is_memory(0):
        e.memory.store(e.locate(0, WRITE), e.value(1) & alu.mask(8 * e.size(0)))
        return
    if e.is_general(0):
        e.set_register(0, e.load(1))
        return
    target = e.segment_register(0)
    if target is None:
        raise NotEmulated
    load_segment(e, target, e.memory.load(e.locate(1, READ, 2)))


@handles(Mnemonic.MOVZX, Mnemonic.MOVSX, Mnemonic.MOVSXD)
def _mov_extended(e: Emulation) -> None:
    value = e.load(1)
    if e.instruction.mnemonic != Mnemonic.MOVZX:
        value = alu.signed(value, 8 * e.size(1))
    e.set_register(0, value)


@handles(Mnemonic.MOVBE)
def _movbe(e: Emulation) -> None:
    size = e.size(0)
    swapped = int.from_bytes(e.load(1).to_bytes(size, "little"), "big")
    if e.is_memory(0):
        e.memory.store(e.locate(0, WRITE), swapped)
    else:
        e.set_register(0, swapped)


@handles(Mnemonic.XLATB)
def _xlat(e: Emulation) -> None:
    set_general(e.state, Reg.RAX, 1, e.load(0))


_CMOVCC = [
    getattr(Mnemonic, f"CMOV{cc}") for cc in ("O", "NO", "B", "AE", "E", "NE", "BE", "A", "S", "NS", "P", "NP", "L", "GE", "LE", "G")
]
_SETCC = [getattr(Mnemonic, f"SET{cc}") for cc in ("O", "NO", "B", "AE", "E", "NE", "BE", "A", "S", "NS", "P", "NP", "L", "GE", "LE", "G")]


@handles(*_CMOVCC)
def _cmov(e: Emulation) -> None:
    value = e.load(1)  # read whether the condition holds or not
    e.set_register(0, value if alu.condition(_CMOVCC.index(e.instruction.mnemonic), e.state.rflags) else e.value(0))


@handles(*_SETCC)
def _setcc(e: Emulation) -> None:
    value = int(alu.condition(_SETCC.index(e.instruction.mnemonic), e.state.rflags))
    if e.is_memory(0):
        e.memory.store(e.locate(0, WRITE), value)
    else:
        e.set_register(0, value)


@handles(Mnemonic.XCHG)
def _xchg(e: Emulation) -> None:
    memory = 0 if e.is_memory(0) else 1
    other = 1 - memory
    span = e.locate_change(memory)
    old = e.memory.load(span)
    e.memory.store(span, e.value(other))
    e.set_register(other, old)


# --- arithmetic

_BINARY: dict[int, alu.Operation] = {
    Mnemonic.ADD: alu.add, Mnemonic.ADC: alu.adc, Mnemonic.SUB: alu.sub, Mnemonic.SBB: alu.sbb,
    Mnemonic.AND: alu.and_, Mnemonic.OR: alu.or_, Mnemonic.XOR: alu.xor,
    Mnemonic.SHL: alu.shl, Mnemonic.SAL: alu.shl, Mnemonic.SHR: alu.shr, Mnemonic.SAR: alu.sar,
    Mnemonic.ROL: alu.rol, Mnemonic.ROR: alu.ror, Mnemonic.RCL: alu.rcl, Mnemonic.RCR: alu.rcr,
}  # fmt: skip
_UNARY: dict[int, alu.Operation] = {Mnemonic.INC: alu.inc, Mnemonic.DEC: alu.dec, Mnemonic.NEG: alu.neg, Mnemonic.NOT: alu.not_}


@handles(*_BINARY)
def _binary(e: Emulation) -> None:
    operation, bits, second = _BINARY[e.instruction.mnemonic], 8 * e.size(0), e.load(1)
    e.update(0, lambda value, flags: operation(value, second, bits, flags))


@handles(*_UNARY)
def _unary(e: Emulation) -> None:
    operation, bits = _UNARY[e.instruction.mnemonic], 8 * e.size(0)
    e.update(0, lambda value, flags: operation(value, 0, bits, flags))


@handles(Mnemonic.CMP, Mnemonic.TEST)
def _compare(e: Emulation) -> None:
    operation = alu.sub if e.instruction.mnemonic == Mnemonic.CMP else alu.and_
    e.set_flags(operation(e.load(0), e.load(1), 8 * e.size(0), e.state.rflags)[1])


@handles(Mnemonic.SHLD, Mnemonic.SHRD)
def _double_shift(e: Emulation) -> None:
    shift = alu.shld if e.instruction.mnemonic == Mnemonic.SHLD else alu.shrd
    bits, filler, count = 8 * e.size(0), e.value(1), e.value(2)
    e.update(0, lambda value, flags: shift(value, filler, count, bits, flags))


@handles(Mnemonic.XADD)
def _xadd(e: Emulation) -> None:
    bits, addend = 8 * e.size(0), e.value(1)
    old: list[int] = []

    def operation(value: int, flags: int) -> tuple[int, int]:
        old.append(value)
        return alu.add(value, addend, bits, flags)

    e.update(0, operation)
    e.set_register(1, old[0])


@handles(Mnemonic.CMPXCHG)
def _cmpxchg(e: Emulation) -> None:
    size = e.size(0)
    wanted, new = e.state.gpr[Reg.RAX] & alu.mask(8 * size), e.value(1)
    span = e.locate_change(0)
    old = e.memory.load(span)
    e.memory.store(span, new if old == wanted else old)  # the write is done either way
    e.set_flags(alu.sub(wanted, old, 8 * size, e.state.rflags)[1])
    if old != wanted:
        set_general(e.state, Reg.RAX, size, old)


@handles(Mnemonic.CMPXCHG8B, Mnemonic.CMPXCHG16B)
def _cmpxchg_wide(e: Emulation) -> None:
    size = 4 if e.instruction.mnemonic == Mnemonic.CMPXCHG8B else 8
    bits, gpr = 8 * size, e.state.gpr
    if size == 8 and e.linear(0) % 16:
        raise GuestFault(GP)
    half = alu.mask(bits)
    span = e.locate_change(0)
    old = e.memory.load(span)
    equal = old == (gpr[Reg.RDX] & half) << bits | gpr[Reg.RAX] & half
    e.memory.store(span, (gpr[Reg.RCX] & half) << bits | gpr[Reg.RBX] & half if equal else old)
    if not equal:
        set_general(e.state, Reg.RAX, size, old & half)
        set_general(e.state, Reg.RDX, size, old >> bits)
    e.set_flags(e.state.rflags & ~alu.ZF | (alu.ZF if equal else 0))
