# SPDX-License-Identifier: GPL-2.0-only
"""Every encoding with a memory operand that the emulator takes, on random registers and memory, ends as Unicorn ends it.

The encodings are found by trying: each opcode, with each prefix and each `reg` of ModRM, is decoded and kept if it is an
instruction with a memory operand for which a handler stands.
"""

from functools import cache
from itertools import product
from random import Random

import pytest
from flat_bench import CODE, DATA, RDI_AT, RSI_AT, RSP_AT, Pair, undefined_flags
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from iced_x86 import Decoder, Instruction, MemorySizeExt, Mnemonic, OpKind, Register, RegisterExt
from unicorn.unicorn_py3 import UcError

from shadowmmu.machine.emulator import alu
from shadowmmu.machine.emulator.decode import UnemulatedInstruction
from shadowmmu.machine.emulator.emulate import FAMILIES
from shadowmmu.machine.emulator.emulation import HANDLERS
from shadowmmu.machine.memory.linear_memory import GuestFault
from shadowmmu.machine.seam import Reg
from shadowmmu.x86.vectors import DE

EXAMPLES = 50  # of each mnemonic
_PREFIXES = (b"", b"\x66", b"\xf2", b"\xf3", b"\xf0")
_REX = (b"", b"\x48", b"\x44", b"\x4c")
_MAPS = (b"", b"\x0f", b"\x0f\x38")
_AT_RSI = 6  # ModRM: [rsi]
_NOT_AN_OPCODE = frozenset((0x0F, 0x26, 0x2E, 0x36, 0x3E, *range(0x40, 0x50), *range(0x64, 0x68), 0xF0, 0xF2, 0xF3))
_NAMES = {getattr(Mnemonic, name): name for name in dir(Mnemonic) if name.isupper()}
_ELSEWHERE = {
    Mnemonic.CALL, Mnemonic.JMP, Mnemonic.POP, Mnemonic.MOVSD, Mnemonic.CMPSD,
    Mnemonic.LTR, Mnemonic.LLDT, Mnemonic.LGDT, Mnemonic.LIDT,
}  # fmt: skip
"""They have tests of their own: control transfers, POP, system segments, and string instructions with a name that SSE has too."""
_BIT_TESTS = {Mnemonic.BT, Mnemonic.BTS, Mnemonic.BTR, Mnemonic.BTC}


def _has_memory_operand(instruction: Instruction) -> bool:
    return OpKind.MEMORY in [instruction.op_kind(i) for i in range(instruction.op_count)]


@cache
def _encodings() -> dict[int, list[bytes]]:
    """Mnemonic -> encodings, without their immediates."""
    assert FAMILIES, "whose import fills HANDLERS"
    found: dict[int, list[bytes]] = {}
    for prefix, rex, opcode_map, opcode, reg in product(_PREFIXES, _REX, _MAPS, range(256), range(8)):
        if not opcode_map and opcode in _NOT_AN_OPCODE:
            continue
        code = prefix + rex + opcode_map + bytes((opcode, reg << 3 | _AT_RSI))
        instruction = Decoder(64, code + bytes(8), ip=CODE).decode()
        by_rsi = instruction.memory_base == Register.RSI and _has_memory_operand(instruction)
        if RegisterExt.is_segment_register(instruction.op0_register) or RegisterExt.is_segment_register(instruction.op1_register):
            continue  # the two have other selectors
        if any(instruction.op_kind(i) == OpKind.REGISTER and RegisterExt.is_mm(instruction.op_register(i)) for i in range(2)):
            continue  # test_emulate_system.py
        taken = instruction.mnemonic in HANDLERS and instruction.mnemonic not in _ELSEWHERE
        if taken and (by_rsi or instruction.mnemonic == Mnemonic.XLATB):
            found.setdefault(instruction.mnemonic, []).append(code)
    return found


_SMALL = st.integers(0, 255)
_VALUE = st.one_of(st.sampled_from((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)), _SMALL, st.integers(0, 2**64 - 1))


def _prepare(pair: Pair, instruction: Instruction, gpr: list[int], operand: int) -> None:
    """Let the addresses lead into memory, and put a telling value there."""
    gpr[Reg.RSI], gpr[Reg.RDI], gpr[Reg.RSP] = RSI_AT, RDI_AT, RSP_AT
    pair.memory[RSI_AT : RSI_AT + 8] = operand.to_bytes(8, "little")
    if instruction.mnemonic == Mnemonic.XLATB:
        gpr[Reg.RBX] = DATA
    if instruction.mnemonic in _BIT_TESTS and instruction.op_kind(1) == OpKind.REGISTER:
        number = RegisterExt.number(RegisterExt.full_register(instruction.op_register(1)))
        if number not in (Reg.RSI, Reg.RDI, Reg.RSP):
            gpr[number] = gpr[number] % 4000 - 2000 & (1 << 64) - 1


def _shift_count(instruction: Instruction, gpr: list[int], bits: int) -> int:
    last = instruction.op_count - 1
    by_register = instruction.op_kind(last) == OpKind.REGISTER
    value = gpr[Reg.RCX] if by_register else int(instruction.immediate8)
    return value & (63 if bits == 64 else 31)


def _forgive(instruction: Instruction, emulated: list[int], reference: list[int], operand: int) -> None:
    """Where the reference is no judge: it clears the upper half of a register that the CPU leaves alone."""
    register = None
    if instruction.mnemonic == Mnemonic.CMPXCHG:
        register = Register.RAX
    elif instruction.mnemonic in (Mnemonic.BSF, Mnemonic.BSR) and not operand & 0xFFFFFFFF:
        register = RegisterExt.full_register(instruction.op_register(0))
    if register is not None and MemorySizeExt.size(instruction.memory_size) == 4:
        number = RegisterExt.number(register)
        emulated[number] &= 0xFFFFFFFF
        reference[number] &= 0xFFFFFFFF


def _faults(pair: Pair, code: bytes, gpr: list[int], flags: int) -> bool:
    """The reference raises an exception, too; after some of them it no longer tells, and just stops there."""
    try:
        return pair.judge(code, gpr, 2 | flags & alu.STATUS)[0].rip == CODE
    except UcError:
        return True


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(Random(1))


@pytest.mark.parametrize("name", sorted(_NAMES[mnemonic] for mnemonic in _encodings()))
def test_an_instruction_in_all_its_encodings(name: str, pair: Pair) -> None:
    mnemonic = getattr(Mnemonic, name)

    @settings(max_examples=EXAMPLES)
    @given(
        st.sampled_from(_encodings()[mnemonic]),
        st.binary(min_size=8, max_size=8),
        st.lists(_VALUE, min_size=16, max_size=16),
        _VALUE,
        st.integers(0, 0xFFF),
    )
    def check(code: bytes, immediate: bytes, gpr: list[int], operand: int, flags: int) -> None:
        instruction = Decoder(64, code + immediate, ip=CODE).decode()
        code = (code + immediate)[: instruction.len]
        _prepare(pair, instruction, gpr, operand)
        try:
            emulated, reference, memory = pair.run(code, gpr, 2 | flags & alu.STATUS)
        except (UnemulatedInstruction, UcError):  # of the second only the few encodings that this judge does not know
            assume(False)
        except GuestFault as fault:
            assert fault.event.vector == DE
            assert _faults(pair, code, gpr, flags)
            return
        assume(reference.rip != CODE)  # nor does it know these, and after some #DE it does not say so
        size = MemorySizeExt.size(instruction.memory_size)
        count = _shift_count(instruction, gpr, 8 * size)
        assume(not (name in ("SHLD", "SHRD") and size == 2 and count > 16))  # the result is undefined
        _forgive(instruction, emulated.gpr, reference.gpr, operand)
        assert [hex(x) for x in emulated.gpr] == [hex(x) for x in reference.gpr], instruction
        assert emulated.rip == reference.rip, instruction
        assert bytes(pair.memory) == memory, instruction
        assert pair.vectors.values == pair.reference_vectors, instruction
        defined = alu.STATUS & ~undefined_flags(name, count, 8 * size)
        if name == "NEG" and instruction.has_lock_prefix:
            return  # the reference takes the flags from another value
        assert emulated.rflags & defined == reference.rflags & defined, f"{instruction}: flags {flags:#x} before"

    check()
