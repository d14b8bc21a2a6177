# SPDX-License-Identifier: GPL-2.0-only
"""Handlers of instructions on single bits: tests, scans and counts."""

from collections.abc import Callable

from iced_x86 import Mnemonic, OpKind

from shadowmmu.machine.emulator import alu
from shadowmmu.machine.emulator.emulation import Emulation, handles
from shadowmmu.machine.memory.linear_memory import READ

_BIT_CHANGES: dict[int, Callable[[int, int], int] | None] = {
    Mnemonic.BT: None,
    Mnemonic.BTS: lambda value, bit: value | bit,
    Mnemonic.BTR: lambda value, bit: value & ~bit,
    Mnemonic.BTC: lambda value, bit: value ^ bit,
}


@handles(*_BIT_CHANGES)
def _bit_test(e: Emulation) -> None:
    """A register bit offset reaches beyond the operand, an immediate one does not. SDM vol. 2, BT."""
    change, size = _BIT_CHANGES[e.instruction.mnemonic], e.size(0)
    bits, position = 8 * size, e.value(1)
    offset = 0
    if e.instruction.op_kind(1) == OpKind.REGISTER:
        offset = (alu.signed(position, bits) >> (bits.bit_length() - 1)) * size
    bit = position % bits
    span = e.locate_change(0, offset) if change else e.locate(0, READ, offset=offset)
    old = e.memory.load(span)
    if change:
        e.memory.store(span, change(old, 1 << bit))
    e.set_flags(e.state.rflags & ~alu.CF | old >> bit & 1)


def _lowest(value: int) -> int:
    return (value & -value).bit_length() - 1


@handles(Mnemonic.BSF, Mnemonic.BSR)
def _scan(e: Emulation) -> None:
    """Of nothing the destination is left alone."""
    value = e.load(1)
    if value:
        e.set_register(0, _lowest(value) if e.instruction.mnemonic == Mnemonic.BSF else value.bit_length() - 1)
    e.set_flags(e.state.rflags & ~alu.ZF | (0 if value else alu.ZF))


@handles(Mnemonic.TZCNT, Mnemonic.LZCNT)
def _count_zeroes(e: Emulation) -> None:
    """CF tells of a source of nothing, ZF of a result of nothing."""
    value, bits = e.load(1), 8 * e.size(1)
    if e.instruction.mnemonic == Mnemonic.TZCNT:
        count = _lowest(value) if value else bits
    else:
        count = bits - value.bit_length()
    e.set_register(0, count)
    e.set_flags(e.state.rflags & ~(alu.CF | alu.ZF) | (0 if value else alu.CF) | (0 if count else alu.ZF))


@handles(Mnemonic.POPCNT)
def _count_ones(e: Emulation) -> None:
    value = e.load(1)
    e.set_register(0, value.bit_count())
    e.set_flags(e.state.rflags & ~alu.STATUS | (0 if value else alu.ZF))
