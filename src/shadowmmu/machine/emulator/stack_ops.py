# SPDX-License-Identifier: GPL-2.0-only
"""Handlers of instructions that use the stack, and of near control transfers that may."""

from iced_x86 import Code, Mnemonic

from shadowmmu.machine.emulator import alu
from shadowmmu.machine.emulator.decode import set_general
from shadowmmu.machine.emulator.emulation import Emulation, NotEmulated, handles
from shadowmmu.machine.emulator.far_jump import far_jump
from shadowmmu.machine.memory.linear_memory import READ, WRITE, GuestFault, Span
from shadowmmu.machine.seam import MASK32, MASK64, Reg, Seg
from shadowmmu.x86.control import Rflags
from shadowmmu.x86.vectors import GP

_PUSHF_CLEARS = Rflags.VM | Rflags.RF


def _pointer_mask(e: Emulation) -> int:
    """The part of RSP that moves: SS.B decides outside 64-bit mode."""
    return MASK64 if e.mode == 64 else MASK32 if e.state.ss.big else 0xFFFF


def _pointer(e: Emulation, moved: int) -> int:
    """RSP moved by some bytes."""
    mask, old = _pointer_mask(e), e.state.gpr[Reg.RSP]
    return old & ~mask | (old + moved) & mask


def _locate(e: Emulation, pointer: int, size: int, access: int) -> Span:
    linear = e.segment_base(Seg.SS) + (pointer & _pointer_mask(e))
    return e.memory.locate(linear, size, access | e.user)


def _push(e: Emulation, value: int, size: int) -> None:
    pointer = _pointer(e, -size)
    e.memory.store(_locate(e, pointer, size, WRITE), value & alu.mask(8 * size))
    e.state.gpr[Reg.RSP] = pointer


def _read_stack(e: Emulation, size: int, moved: int = 0) -> int:
    return e.memory.load(_locate(e, _pointer(e, moved), size, READ))


def _go(e: Emulation, target: int, size: int) -> None:
    """A near transfer; `size` of the operand cuts the target."""
    target &= alu.mask(8 * size)
    if e.mode == 64 and not e.memory.canonical(target):
        raise GuestFault(GP)
    e.state.rip = target


@handles(Mnemonic.PUSH)
def _push_operand(e: Emulation) -> None:
    value = e.load(0) if e.is_memory(0) else e.value(0)
    _push(e, value, -e.instruction.stack_pointer_increment)


@handles(Mnemonic.POP)
def _pop_operand(e: Emulation) -> None:
    size = e.instruction.stack_pointer_increment
    if not e.is_memory(0) and not e.is_general(0):
        raise NotEmulated  # a segment register
    value = _read_stack(e, size)
    old, e.state.gpr[Reg.RSP] = e.state.gpr[Reg.RSP], _pointer(e, size)
    if not e.is_memory(0):
        e.set_register(0, value)
        return
    try:
        e.memory.store(e.locate(0, WRITE), value)  # its address counts RSP as moved
    except GuestFault:
        e.state.gpr[Reg.RSP] = old
        raise


@handles(Mnemonic.CALL)
def _call(e: Emulation) -> None:
    if e.instruction.is_call_far or e.instruction.is_call_far_indirect:
        raise NotEmulated
    size, back = -e.instruction.stack_pointer_increment, e.state.rip
    target = e.load(0) if e.memory_operand() is not None else e.value(0)
    _go(e, target, size)
    _push(e, back, size)


@handles(Mnemonic.JMP)
def _jmp(e: Emulation) -> None:
    if e.memory_operand() is None:
        raise NotEmulated
    if e.instruction.is_jmp_far_indirect:
        far_jump(e)
    else:
        _go(e, e.load(0), e.size(0))


@handles(Mnemonic.RET)
def _ret(e: Emulation) -> None:
    size = e.instruction.stack_pointer_increment
    extra = e.value(0) if e.instruction.op_count else 0
    size -= extra
    _go(e, _read_stack(e, size), size)
    e.state.gpr[Reg.RSP] = _pointer(e, size + extra)


@handles(Mnemonic.ENTER)
def _enter(e: Emulation) -> None:
    """Of nesting level 0 only."""
    if e.instruction.immediate8_2nd & 31:
        raise NotEmulated
    room = e.instruction.immediate16
    size = -e.instruction.stack_pointer_increment - room
    _push(e, e.state.gpr[Reg.RBP], size)
    frame = e.state.gpr[Reg.RSP]
    e.state.gpr[Reg.RSP] = _pointer(e, -room)
    mask = _pointer_mask(e)
    e.state.gpr[Reg.RBP] = e.state.gpr[Reg.RBP] & ~mask | frame & mask


_LEAVE_SIZES = {Code.LEAVEW: 2, Code.LEAVED: 4, Code.LEAVEQ: 8}


@handles(Mnemonic.LEAVE)
def _leave(e: Emulation) -> None:
    mask, gpr, size = _pointer_mask(e), e.state.gpr, _LEAVE_SIZES[e.instruction.code]
    frame = gpr[Reg.RSP] & ~mask | gpr[Reg.RBP] & mask
    value = e.memory.load(_locate(e, frame, size, READ))
    gpr[Reg.RSP] = frame
    gpr[Reg.RSP] = _pointer(e, size)
    set_general(e.state, Reg.RBP, size, value)


@handles(Mnemonic.PUSHFQ, Mnemonic.PUSHFD, Mnemonic.PUSHF)
def _pushf(e: Emulation) -> None:
    _push(e, e.state.rflags & ~_PUSHF_CLEARS, -e.instruction.stack_pointer_increment)


@handles(Mnemonic.PUSHA, Mnemonic.PUSHAD)
def _pusha(e: Emulation) -> None:
    size = -e.instruction.stack_pointer_increment // 8
    spans = [_locate(e, _pointer(e, -size * (i + 1)), size, WRITE) for i in range(8)]
    for span, value in zip(spans, list(e.state.gpr[:8]), strict=True):
        e.memory.store(span, value & alu.mask(8 * size))
    e.state.gpr[Reg.RSP] = _pointer(e, -8 * size)
