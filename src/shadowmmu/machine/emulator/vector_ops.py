# SPDX-License-Identifier: GPL-2.0-only
"""Handlers of the moves of SSE between an XMM register and memory, and of MMX's MOVQ and MOVD."""

from iced_x86 import Mnemonic

from shadowmmu.machine.emulator import alu
from shadowmmu.machine.emulator.emulation import Emulation, NotEmulated, handles
from shadowmmu.machine.memory.linear_memory import WRITE, GuestFault
from shadowmmu.x86.vectors import GP

_ALIGNED = frozenset((
    Mnemonic.MOVAPS, Mnemonic.MOVAPD, Mnemonic.MOVDQA,
    Mnemonic.MOVNTPS, Mnemonic.MOVNTPD, Mnemonic.MOVNTDQ, Mnemonic.MOVNTDQA,
))  # fmt: skip
_LOW = frozenset((Mnemonic.MOVLPS, Mnemonic.MOVLPD))
_HIGH = frozenset((Mnemonic.MOVHPS, Mnemonic.MOVHPD))


@handles(*_ALIGNED, Mnemonic.MOVUPS, Mnemonic.MOVUPD, Mnemonic.MOVDQU, Mnemonic.LDDQU, Mnemonic.MOVQ, Mnemonic.MOVD, Mnemonic.MOVSS)
def move_vector(e: Emulation) -> None:
    """The lower part of the register, as wide as the operand; a load clears the rest."""
    if _moves_mmx(e):
        return
    memory, number = _operands(e)
    if e.instruction.mnemonic in _ALIGNED and e.linear(memory) % 16:
        raise GuestFault(GP)
    if memory == 0:
        e.memory.store(e.locate(0, WRITE), e.cpu.vector(number) & alu.mask(8 * e.size(0)))
    else:
        e.cpu.set_vector(number, e.load(1))


@handles(*_LOW, *_HIGH)
def _move_half(e: Emulation) -> None:
    """One half of the register; a load keeps the other."""
    memory, number = _operands(e)
    shift = 64 if e.instruction.mnemonic in _HIGH else 0
    if memory == 0:
        e.memory.store(e.locate(0, WRITE), e.cpu.vector(number) >> shift & alu.mask(64))
    else:
        half = e.load(1)
        e.cpu.set_vector(number, e.cpu.vector(number) & ~(alu.mask(64) << shift) | half << shift)


def _moves_mmx(e: Emulation) -> bool:
    """MOVQ and MOVD of an MMX register; False: it is none."""
    memory = e.memory_operand()
    number = None if memory is None else e.mmx(1 - memory)
    if memory is None or number is None:
        return False
    if memory == 0:
        e.memory.store(e.locate(0, WRITE), e.cpu.mmx(number) & alu.mask(8 * e.size(0)))
    else:
        e.cpu.set_mmx(number, e.load(1))
    return True


def _operands(e: Emulation) -> tuple[int, int]:
    """Index of the memory operand, and number of the XMM register that is the other one."""
    memory = e.memory_operand()
    number = None if memory is None else e.vector(1 - memory)
    if memory is None or number is None:
        raise NotEmulated
    return memory, number
