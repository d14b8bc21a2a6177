# SPDX-License-Identifier: GPL-2.0-only
"""Integer arithmetic with flags, as the instructions do it. Sources: SDM vol. 2 and vol. 1 appendix A.

An operation takes operands, the width in bits and the flags before, and gives the result and the flags after.
Flags the manual leaves undefined are given the value of current processors where it is known, else kept.
"""

from collections.abc import Callable

CF, PF, AF, ZF, SF, OF, DF = 0x1, 0x4, 0x10, 0x40, 0x80, 0x800, 0x400
STATUS = CF | PF | AF | ZF | SF | OF

Operation = Callable[[int, int, int, int], tuple[int, int]]
"""(first, second, bits, flags) -> (result, flags)"""

_PARITY = bytes(PF if bin(i).count("1") % 2 == 0 else 0 for i in range(256))


def mask(bits: int) -> int:
    return (1 << bits) - 1


def signed(value: int, bits: int) -> int:
    """The value with its top bit taken as a sign."""
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def _sign_zero_parity(result: int, bits: int) -> int:
    return _PARITY[result & 0xFF] | (SF if result >> (bits - 1) & 1 else 0) | (0 if result else ZF)


def _sum(a: int, b: int, carry: int, bits: int, flags: int) -> tuple[int, int]:
    total = a + b + carry
    result = total & mask(bits)
    status = _sign_zero_parity(result, bits) | (a ^ b ^ result) & AF | (CF if total >> bits else 0)
    if (a ^ result) & (b ^ result) & 1 << (bits - 1):
        status |= OF
    return result, flags & ~STATUS | status


def _difference(a: int, b: int, borrow: int, bits: int, flags: int) -> tuple[int, int]:
    total = a - b - borrow
    result = total & mask(bits)
    status = _sign_zero_parity(result, bits) | (a ^ b ^ result) & AF | (CF if total < 0 else 0)
    if (a ^ b) & (a ^ result) & 1 << (bits - 1):
        status |= OF
    return result, flags & ~STATUS | status


def add(a: int, b: int, bits: int, flags: int) -> tuple[int, int]:
    return _sum(a, b, 0, bits, flags)


def adc(a: int, b: int, bits: int, flags: int) -> tuple[int, int]:
    return _sum(a, b, flags & CF, bits, flags)


def sub(a: int, b: int, bits: int, flags: int) -> tuple[int, int]:
    return _difference(a, b, 0, bits, flags)


def sbb(a: int, b: int, bits: int, flags: int) -> tuple[int, int]:
    return _difference(a, b, flags & CF, bits, flags)


def _logic(result: int, bits: int, flags: int) -> tuple[int, int]:
    return result, flags & ~STATUS | _sign_zero_parity(result, bits)


def and_(a: int, b: int, bits: int, flags: int) -> tuple[int, int]:
    return _logic(a & b, bits, flags)


def or_(a: int, b: int, bits: int, flags: int) -> tuple[int, int]:
    return _logic(a | b, bits, flags)


def xor(a: int, b: int, bits: int, flags: int) -> tuple[int, int]:
    return _logic(a ^ b, bits, flags)


def inc(a: int, _b: int, bits: int, flags: int) -> tuple[int, int]:
    result, after = _sum(a, 1, 0, bits, flags)
    return result, after & ~CF | flags & CF


def dec(a: int, _b: int, bits: int, flags: int) -> tuple[int, int]:
    result, after = _difference(a, 1, 0, bits, flags)
    return result, after & ~CF | flags & CF


def neg(a: int, _b: int, bits: int, flags: int) -> tuple[int, int]:
    return _difference(0, a, 0, bits, flags)


def not_(a: int, _b: int, bits: int, flags: int) -> tuple[int, int]:
    return ~a & mask(bits), flags


# --- shifts and rotates; the count is masked to 5 bits, 6 for 64-bit operands


def _count(count: int, bits: int) -> int:
    return count & (63 if bits == 64 else 31)


def _shifted(result: int, carry: int, overflow: int, bits: int, flags: int) -> tuple[int, int]:
    status = _sign_zero_parity(result, bits) | (CF if carry else 0) | (OF if overflow else 0)
    return result, flags & ~STATUS | status


def shl(a: int, count: int, bits: int, flags: int) -> tuple[int, int]:
    count = _count(count, bits)
    if not count:
        return a, flags
    wide = a << count
    result = wide & mask(bits)
    carry = wide >> bits & 1
    return _shifted(result, carry, carry ^ result >> (bits - 1), bits, flags)


def shr(a: int, count: int, bits: int, flags: int) -> tuple[int, int]:
    count = _count(count, bits)
    if not count:
        return a, flags
    before = a >> (count - 1)
    return _shifted(
        a >> count, before & 1, (before >> (bits - 1) ^ before >> (bits - 2)) & 1 if count > 1 else a >> (bits - 1), bits, flags
    )


def sar(a: int, count: int, bits: int, flags: int) -> tuple[int, int]:
    count = _count(count, bits)
    if not count:
        return a, flags
    value = signed(a, bits)
    return _shifted(value >> count & mask(bits), value >> (count - 1) & 1, 0, bits, flags)


def _rotated(result: int, carry: int, overflow: int, flags: int) -> tuple[int, int]:
    return result, flags & ~(CF | OF) | (CF if carry & 1 else 0) | (OF if overflow & 1 else 0)


def rol(a: int, count: int, bits: int, flags: int) -> tuple[int, int]:
    if not _count(count, bits):
        return a, flags
    turns = _count(count, bits) % bits
    result = (a << turns | a >> (bits - turns)) & mask(bits)
    return _rotated(result, result, result >> (bits - 1) ^ result, flags)


def ror(a: int, count: int, bits: int, flags: int) -> tuple[int, int]:
    if not _count(count, bits):
        return a, flags
    turns = _count(count, bits) % bits
    result = (a >> turns | a << (bits - turns)) & mask(bits)
    return _rotated(result, result >> (bits - 1), result >> (bits - 1) ^ result >> (bits - 2), flags)


def rcl(a: int, count: int, bits: int, flags: int) -> tuple[int, int]:
    turns = _count(count, bits) % (bits + 1)
    if not turns:
        return a, flags
    wide = a | (flags & CF) << bits
    wide = (wide << turns | wide >> (bits + 1 - turns)) & mask(bits + 1)
    result, carry = wide & mask(bits), wide >> bits
    return _rotated(result, carry, carry ^ result >> (bits - 1), flags)


def rcr(a: int, count: int, bits: int, flags: int) -> tuple[int, int]:
    turns = _count(count, bits) % (bits + 1)
    if not turns:
        return a, flags
    wide = a | (flags & CF) << bits
    wide = (wide >> turns | wide << (bits + 1 - turns)) & mask(bits + 1)
    result = wide & mask(bits)
    return _rotated(result, wide >> bits, result >> (bits - 1) ^ result >> (bits - 2), flags)


def shld(a: int, filler: int, count: int, bits: int, flags: int) -> tuple[int, int]:
    """SHLD; of 16-bit operands only counts up to 16 are defined."""
    count = _count(count, bits)
    if not count:
        return a, flags
    wide = a << bits | filler
    if bits == 16:
        wide = wide << 16 | a  # a count above 16 goes on into the first operand again
        moved = wide << count >> 32
    else:
        moved = wide << count >> bits
    result = moved & mask(bits)
    return _shifted(result, moved >> bits & 1, (a ^ result) >> (bits - 1) & 1, bits, flags)


def shrd(a: int, filler: int, count: int, bits: int, flags: int) -> tuple[int, int]:
    """SHRD; of 16-bit operands only counts up to 16 are defined."""
    count = _count(count, bits)
    if not count:
        return a, flags
    wide = filler << bits | a
    if bits == 16:
        wide |= a << 32
    result = wide >> count & mask(bits)
    return _shifted(result, wide >> (count - 1) & 1, (a ^ result) >> (bits - 1) & 1, bits, flags)


def condition(code: int, flags: int) -> bool:
    """The condition of Jcc, SETcc and CMOVcc with this number, 0-15. SDM vol. 1 appendix B."""
    less = bool(flags & SF) != bool(flags & OF)
    tests = (
        bool(flags & OF),
        bool(flags & CF),
        bool(flags & ZF),
        bool(flags & (CF | ZF)),
        bool(flags & SF),
        bool(flags & PF),
        less,
        less or bool(flags & ZF),
    )
    return tests[code >> 1] != bool(code & 1)
