# SPDX-License-Identifier: GPL-2.0-only
"""Handlers of multiplication and division, and of the additions with one carry of their own that go with long products."""

from iced_x86 import Mnemonic

from shadowmmu.machine.emulator import alu
from shadowmmu.machine.emulator.decode import set_general
from shadowmmu.machine.emulator.emulation import Emulation, handles
from shadowmmu.machine.memory.linear_memory import GuestFault
from shadowmmu.machine.seam import Reg
from shadowmmu.x86.vectors import DE


def _accumulator(e: Emulation, size: int) -> int:
    """AX, DX:AX, EDX:EAX or RDX:RAX: twice the operand's size."""
    gpr, bits = e.state.gpr, 8 * size
    if size == 1:
        return gpr[Reg.RAX] & 0xFFFF
    return (gpr[Reg.RDX] & alu.mask(bits)) << bits | gpr[Reg.RAX] & alu.mask(bits)


def _set_accumulator(e: Emulation, size: int, low: int, high: int) -> None:
    if size == 1:
        set_general(e.state, Reg.RAX, 2, high << 8 | low)
        return
    set_general(e.state, Reg.RAX, size, low)
    set_general(e.state, Reg.RDX, size, high)


def _set_overflow(e: Emulation, overflow: bool) -> None:
    """CF and OF: the product is wider than the factors."""
    e.set_flags(e.state.rflags & ~(alu.CF | alu.OF) | (alu.CF | alu.OF if overflow else 0))


@handles(Mnemonic.MUL, Mnemonic.IMUL)
def _multiply(e: Emulation) -> None:
    size, factor = e.size(0), e.load(0 if e.instruction.op_count == 1 else 1)
    bits, is_signed = 8 * size, e.instruction.mnemonic == Mnemonic.IMUL
    if e.instruction.op_count == 1:
        other = e.state.gpr[Reg.RAX] & alu.mask(bits)
    else:
        other = e.value(e.instruction.op_count - 1 if e.instruction.op_count == 3 else 0) & alu.mask(bits)
    if is_signed:
        factor, other = alu.signed(factor, bits), alu.signed(other, bits)
    product = factor * other
    low, high = product & alu.mask(bits), product >> bits & alu.mask(bits)
    if e.instruction.op_count == 1:
        _set_accumulator(e, size, low, high)
    else:
        e.set_register(0, low)
    _set_overflow(e, alu.signed(low, bits) != product if is_signed else high != 0)


@handles(Mnemonic.DIV, Mnemonic.IDIV)
def _divide(e: Emulation) -> None:
    """Rounded toward zero; #DE if the quotient is too wide."""
    size, divisor = e.size(0), e.load(0)
    bits, dividend = 8 * size, _accumulator(e, size)
    is_signed = e.instruction.mnemonic == Mnemonic.IDIV
    if is_signed:
        dividend, divisor = alu.signed(dividend, 2 * bits), alu.signed(divisor, bits)
    if not divisor:
        raise GuestFault(DE)
    quotient, remainder = divmod(abs(dividend), abs(divisor))
    if (dividend < 0) != (divisor < 0):
        quotient = -quotient
    least, most = (-(1 << bits - 1), alu.mask(bits - 1)) if is_signed else (0, alu.mask(bits))
    if not least <= quotient <= most:
        raise GuestFault(DE)
    _set_accumulator(e, size, quotient & alu.mask(bits), (-remainder if dividend < 0 else remainder) & alu.mask(bits))


@handles(Mnemonic.ADCX, Mnemonic.ADOX)
def _add_with_own_carry(e: Emulation) -> None:
    """ADCX carries in CF alone, ADOX in OF alone."""
    flag = alu.CF if e.instruction.mnemonic == Mnemonic.ADCX else alu.OF
    bits = 8 * e.size(0)
    total = e.value(0) + e.load(1) + bool(e.state.rflags & flag)
    e.set_register(0, total & alu.mask(bits))
    e.set_flags(e.state.rflags & ~flag | (flag if total >> bits else 0))
