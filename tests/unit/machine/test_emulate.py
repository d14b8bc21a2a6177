# SPDX-License-Identifier: GPL-2.0-only
"""The emulator against Unicorn: the same instruction, the same registers and memory, must end the same.

Instructions are made from iced-x86's own table of encodings, operands and values from a fixed seed.
"""

import struct
from random import Random
from typing import Any

import pytest
from flat_bench import (
    CODE,
    DATA,
    RDI_AT,
    ROTATE,
    RSI_AT,
    RSP_AT,
    SHIFT,
    SIZE,
    STACK,
    FlatVcpu,
    Pair,
    Vectors,
    flat_state,
    undefined_flags,
)
from iced_x86 import Code, Encoder, Instruction, MemoryOperand, Register

from shadowmmu.machine.emulator import alu
from shadowmmu.machine.emulator.decode import Fetcher, UnemulatedInstruction
from shadowmmu.machine.emulator.emulate import Emulator
from shadowmmu.machine.memory.linear_memory import GuestFault, GuestMemory
from shadowmmu.machine.seam import Reg, Seg
from shadowmmu.x86.vectors import PF

SEED, ROUNDS = 1, 8

# --- what is tested: iced code names

BINARY = ["ADD", "OR", "ADC", "SBB", "AND", "SUB", "XOR"]
CC = ["O", "NO", "B", "AE", "E", "NE", "BE", "A", "S", "NS", "P", "NP", "L", "GE", "LE", "G"]


def _integer_names() -> list[str]:
    names = []
    for n in (8, 16, 32, 64):
        imm = "IMM8" if n == 8 else "IMM16" if n == 16 else "IMM32"
        for op in BINARY:
            names += [f"{op}_RM{n}_R{n}", f"{op}_R{n}_RM{n}", f"{op}_RM{n}_{imm}"]
            names += [] if n == 8 else [f"{op}_RM{n}_IMM8"]
        names += [f"CMP_RM{n}_R{n}", f"CMP_R{n}_RM{n}", f"CMP_RM{n}_{imm}", f"TEST_RM{n}_R{n}", f"TEST_RM{n}_{imm}"]
        names += [f"{op}_RM{n}" for op in ("INC", "DEC", "NEG", "NOT")]
        names += [f"MOV_RM{n}_R{n}", f"MOV_R{n}_RM{n}", f"MOV_RM{n}_{imm}", f"XCHG_RM{n}_R{n}", f"XADD_RM{n}_R{n}", f"CMPXCHG_RM{n}_R{n}"]
        names += [f"{op}_RM{n}_{count}" for op in ROTATE + SHIFT for count in ("IMM8", "CL", "1")]
        if n > 8:
            names += [f"{op}_RM{n}_{bit}" for op in ("BT", "BTS", "BTR", "BTC") for bit in (f"R{n}", "IMM8")]
            names += [f"{op}_RM{n}_R{n}_{count}" for op in ("SHLD", "SHRD") for count in ("IMM8", "CL")]
            names += [f"MOVZX_R{n}_RM8", f"MOVSX_R{n}_RM8"]
            names += [f"CMOV{cc}_R{n}_RM{n}" for cc in CC]
        if n > 16:
            names += [f"MOVZX_R{n}_RM16", f"MOVSX_R{n}_RM16"]
    names += [f"SET{cc}_RM8" for cc in CC]
    names += ["MOVSXD_R64_RM32", "MOVNTI_M32_R32", "MOVNTI_M64_R64", "CMPXCHG8B_M64", "CMPXCHG16B_M128", "MOV_RM16_SREG"]
    return names


STACK_NAMES = ["PUSH_RM64", "PUSH_RM16", "PUSH_R64", "PUSHQ_IMM8", "PUSHQ_IMM32", "POP_RM64", "POP_RM16", "POP_R64", "PUSHFQ", "LEAVEQ"]
STRINGS, COMPARISONS = ("STOS", "LODS", "MOVS", "SCAS", "CMPS"), ("SCAS", "CMPS")


# --- instructions from iced-x86's names


class Immediate(int):
    """An integer that is an operand, not a register."""


def encode(code: int, operands: list[object]) -> bytes:
    """The bytes of an instruction; a plain integer is a register."""
    make = {
        (): lambda: Instruction.create(code),
        ("m",): lambda: Instruction.create_mem(code, *operands),
        ("r",): lambda: Instruction.create_reg(code, *operands),
        ("i",): lambda: Instruction.create_i32(code, *operands),
        ("m", "r"): lambda: Instruction.create_mem_reg(code, *operands),
        ("r", "m"): lambda: Instruction.create_reg_mem(code, *operands),
        ("m", "i"): lambda: Instruction.create_mem_i32(code, *operands),
        ("m", "r", "r"): lambda: Instruction.create_mem_reg_reg(code, *operands),
        ("m", "r", "i"): lambda: Instruction.create_mem_reg_i32(code, *operands),
    }
    kinds = tuple("m" if isinstance(o, MemoryOperand) else "i" if isinstance(o, Immediate) else "r" for o in operands)
    operands = [int(o) if isinstance(o, Immediate) else o for o in operands]
    instruction = make[kinds]()
    encoder = Encoder(64)
    encoder.encode(instruction, CODE)
    return encoder.take_buffer()


_LETTERS = {
    8: ("CL", "DL", "BL", "AH", "CH", "R9L"),
    16: ("CX", "DX", "BX", "R9W"),
    32: ("ECX", "EDX", "EBX", "R9D"),
    64: ("RCX", "RDX", "RBX", "R9"),
}


def operands_of(name: str, random: Random, memory: MemoryOperand) -> tuple[list[object], int]:
    """Operands for a code name, and the shift count if there is one."""
    found: list[object] = []
    count = 1
    for part in name.split("_")[1:]:
        if part.startswith(("RM", "M")):
            found.append(memory)
        elif part == "SREG":
            found.append(Register.SS)
        elif part == "CL":
            found.append(Register.CL)
        elif part == "1":
            found.append(Immediate(1))
        elif part.startswith("IMM"):
            bits = int(part[3:])
            count = random.choice((0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 127))
            found.append(Immediate(count if bits == 8 else random.choice((1, 0x7F, -1, random.getrandbits(31 if bits == 32 else 15)))))
        else:
            letters = _LETTERS[int(part[1:])]
            found.append(getattr(Register, random.choice(letters)))
    return found, count


def memory_operand(random: Random) -> MemoryOperand:
    """[rsi], [rsi+disp], [rdi+rbp*scale+disp] (RBP is 0); some cross a page."""
    displacement = random.choice((0, 8, 0x7FC, 0x7F9, -16))
    return random.choice((
        MemoryOperand(Register.RSI, displ=displacement, displ_size=8),
        MemoryOperand(Register.RDI, Register.RBP, random.choice((1, 2, 4, 8)), random.choice((0, 13, -8)), 8),
    ))  # fmt: skip


def shift_count(name: str, gpr: list[int], count: int) -> int:
    parts = name.split("_")
    bits = int("".join(c for c in parts[1] if c.isdigit()) or 64)
    value = gpr[Reg.RCX] if parts[-1] == "CL" else 1 if parts[-1] == "1" else count
    return value & (63 if bits == 64 else 31)


@pytest.mark.parametrize("name", _integer_names())
def test_integer_instruction(name: str) -> None:
    random = Random(f"{SEED} {name}")
    pair = Pair(random)
    bits = int("".join(c for c in name.split("_")[1] if c.isdigit()) or 64)
    for _ in range(ROUNDS):
        gpr, flags = pair.registers(), 2 | random.getrandbits(12) & alu.STATUS
        gpr[Reg.RBP] = 0
        operand = MemoryOperand(Register.RSI, displ=0, displ_size=8) if name == "CMPXCHG16B_M128" else memory_operand(random)
        operands, count = operands_of(name, random, operand)
        if name.startswith(("BT_", "BTS_", "BTR_", "BTC_")) and name.split("_")[-1] != "IMM8":
            for register in (Reg.RCX, Reg.RDX, Reg.RBX, 9):
                gpr[register] = random.randrange(-2000, 2000) % (1 << 64)
        if any(o in (Register.AH, Register.CH) for o in operands if not isinstance(o, MemoryOperand | Immediate)):
            operands = [MemoryOperand(Register.RSI) if isinstance(o, MemoryOperand) else o for o in operands]
        if name.startswith("CMPXCHG") and random.random() < 0.5:
            at = RSI_AT
            gpr[Reg.RAX], gpr[Reg.RDX] = struct.unpack_from("<QQ", pair.memory, at)
        code = encode(getattr(Code, name), operands)
        emulated, reference, memory = pair.run(code, gpr, flags)
        ignored = undefined_flags(name, shift_count(name, gpr, count), bits)
        if name.startswith(("SHLD_RM16", "SHRD_RM16")) and shift_count(name, gpr, count) > 16:
            continue  # the result is undefined
        if name == "CMPXCHG_RM32_R32" and emulated.rflags & alu.ZF:
            emulated.gpr[Reg.RAX] &= 0xFFFFFFFF  # the reference clears the upper half though EAX is not written
        assert [hex(x) for x in emulated.gpr] == [hex(x) for x in reference.gpr], code.hex()
        assert emulated.rip == reference.rip
        assert bytes(pair.memory) == memory, code.hex()
        shown = emulated.rflags & ~ignored & alu.STATUS, reference.rflags & ~ignored & alu.STATUS
        assert shown[0] == shown[1], f"{code.hex()} flags {shown[0]:#x}, not {shown[1]:#x}; before {flags:#x}"


@pytest.mark.parametrize("name", STACK_NAMES)
def test_stack_instruction(name: str) -> None:
    random = Random(f"{SEED} {name}")
    pair = Pair(random)
    for round_ in range(ROUNDS):
        gpr = pair.registers()
        gpr[Reg.RBP] = RSP_AT + 0x40
        base = random.choice((Register.RSP, Register.RSI))
        operands, _ = operands_of(name, random, MemoryOperand(base, displ=0x20, displ_size=8))
        if round_ == 0:
            gpr[Reg.RSP] = STACK + 0x1004  # the access crosses a page
        code = encode(getattr(Code, name), operands)
        emulated, reference, memory = pair.run(code, gpr, 0x246)
        assert [hex(x) for x in emulated.gpr] == [hex(x) for x in reference.gpr], code.hex()
        assert (emulated.rip, bytes(pair.memory)) == (reference.rip, memory), code.hex()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (bytes.fromhex("e8fb0f0000"), "call rel32"),
        (bytes.fromhex("ff16"), "call [rsi]"),
        (bytes.fromhex("ffd1"), "call rcx"),
        (bytes.fromhex("c3"), "ret"),
        (bytes.fromhex("c21000"), "ret 16"),
        (bytes.fromhex("c8200000"), "enter 32, 0"),
        (bytes.fromhex("ff26"), "jmp [rsi]"),
    ],
)
def test_control_transfer(code: bytes, reason: str) -> None:
    pair = Pair(Random(SEED))
    gpr = pair.registers()
    gpr[Reg.RCX] = 0x2000
    for at in (RSI_AT, RSP_AT):
        pair.memory[at : at + 8] = struct.pack("<Q", 0x2000)
    emulated, reference, memory = pair.run(code, gpr, 2)
    assert (emulated.rip, emulated.gpr, bytes(pair.memory)) == (reference.rip, reference.gpr, memory), reason


def _string_cases() -> list[tuple[str, str]]:
    """Instructions with the prefixes that mean something to them."""
    prefixes = {op: ("", "rep", "repne") if op in COMPARISONS else ("", "rep") for op in STRINGS}
    return [(op + size, prefix) for op in STRINGS for size in "BWDQ" for prefix in prefixes[op]]


@pytest.mark.parametrize(("stem", "prefix"), _string_cases())
@pytest.mark.parametrize("backwards", [False, True])
def test_string_instruction(stem: str, prefix: str, backwards: bool) -> None:
    compares = stem[:4] in COMPARISONS
    random = Random(f"{SEED} {stem} {prefix} {backwards}")
    pair = Pair(random)
    width = {"B": 1, "W": 2, "D": 4, "Q": 8}[stem[4]]
    opcode = {"STOS": 0xAA, "LODS": 0xAC, "MOVS": 0xA4, "SCAS": 0xAE, "CMPS": 0xA6}[stem[:4]] | (width > 1)
    code = {"": b"", "rep": b"\xf3", "repne": b"\xf2"}[prefix] + {1: b"", 2: b"\x66", 4: b"", 8: b"\x48"}[width] + bytes((opcode,))
    if compares and prefix == "rep":  # something to find equal
        pair.memory[DATA : DATA + 0x2000] = b"\x5a" * 0x2000
        pair.memory[RDI_AT + (-19 if backwards else 19) * width] = 0
    gpr = pair.registers()
    gpr[Reg.RAX], gpr[Reg.RCX] = 0x5A5A5A5A5A5A5A5A, 41
    emulated, reference, memory = pair.run(code, gpr, 2 | (alu.DF if backwards else 0), steps=10)
    assert [hex(x) for x in emulated.gpr] == [hex(x) for x in reference.gpr]
    assert (emulated.rip, bytes(pair.memory)) == (CODE + len(code), memory)
    assert emulated.rflags & alu.STATUS == reference.rflags & alu.STATUS


# --- what Unicorn cannot judge


def emulator(ram: bytearray, *, absent: tuple[int, ...] = ()) -> tuple[Emulator, Any]:
    vcpu: Any = FlatVcpu(ram)
    vcpu.absent = set(absent)
    memory = GuestMemory(vcpu, lambda gpa, size: None)
    cpu: Any = Vectors()
    return Emulator(memory, Fetcher(memory), cpu), cpu


@pytest.mark.parametrize(
    "code",
    [
        bytes.fromhex("48870e"),  # xchg [rsi], rcx
        bytes.fromhex("480fc10e"),  # xadd [rsi], rcx
        bytes.fromhex("480fc70e"),  # cmpxchg16b [rsi]
        bytes.fromhex("48010e"),  # add [rsi], rcx
        bytes.fromhex("8f06"),  # pop [rsi]
        bytes.fromhex("ff36"),  # push [rsi]
        bytes.fromhex("48a5"),  # movsq
        bytes.fromhex("f348ab"),  # rep stosq
        bytes.fromhex("0fab0e"),  # bts [rsi], ecx
    ],
)
def test_a_fault_changes_nothing(code: bytes) -> None:
    """The second page of the operand is absent: the fault names it, registers and memory stay."""
    ram = bytearray(range(256)) * (SIZE // 256)
    ram[CODE : CODE + len(code)] = code
    before = bytes(ram)
    e, _ = emulator(ram, absent=(DATA + 0x1000 >> 12,))
    gpr = [0x10 + i for i in range(16)]
    edge = DATA + 0xFFC if b"\xc7" not in code[:3] else DATA + 0x1000
    gpr[Reg.RSI] = gpr[Reg.RDI] = edge
    gpr[Reg.RSP] = STACK + 0x800
    state = flat_state(list(gpr), 0x202)
    if code == bytes.fromhex("0fab0e"):
        gpr[Reg.RSI] = edge = DATA + 0xFFE
        state.gpr[Reg.RSI] = edge
        state.gpr[Reg.RCX] = gpr[Reg.RCX] = 3
    with pytest.raises(GuestFault) as fault:
        e.step(state)
    assert fault.value.event.vector == PF
    assert fault.value.event.cr2 == DATA + 0x1000
    assert fault.value.event.error_code & 2 == (0 if code in (bytes.fromhex("ff36"), bytes.fromhex("48a5")) else 2)
    assert (bytes(ram), state.gpr, state.rip, state.rflags) == (before, gpr, CODE, 0x202)


def test_a_repeated_instruction_stops_at_a_fault_with_its_progress() -> None:
    ram = bytearray(SIZE)
    ram[CODE : CODE + 3] = bytes.fromhex("f348ab")
    e, _ = emulator(ram, absent=(DATA + 0x1000 >> 12,))
    gpr = [0] * 16
    gpr[Reg.RAX], gpr[Reg.RCX], gpr[Reg.RDI] = 0x77, 10, DATA + 0x1000 - 24
    after = e.step(flat_state(gpr, 2))
    assert (after.gpr[Reg.RCX], after.gpr[Reg.RDI], after.rip) == (7, DATA + 0x1000, CODE)


@pytest.mark.parametrize(
    ("code", "stores"),
    [("0f2906", True), ("0f1106", True), ("660f7f06", True), ("f30f7f06", True), ("0f2806", False), ("f30f6f06", False)],
)
def test_sixteen_byte_moves(code: str, stores: bool) -> None:
    ram = bytearray(range(256)) * (SIZE // 256)
    raw = bytes.fromhex(code)
    ram[CODE : CODE + len(raw)] = raw
    e, cpu = emulator(ram)
    gpr = [0] * 16
    gpr[Reg.RSI] = DATA
    before = cpu.vector(0)
    e.step(flat_state(gpr, 2))
    in_memory = int.from_bytes(ram[DATA : DATA + 16], "little")
    assert (in_memory == before) if stores else (cpu.vector(0) == in_memory)


def test_aligned_moves_demand_alignment() -> None:
    ram = bytearray(SIZE)
    ram[CODE : CODE + 3] = bytes.fromhex("0f2906")
    e, _ = emulator(ram)
    with pytest.raises(GuestFault, match="#GP"):
        e.step(flat_state([DATA + 8] * 16, 2))


def test_memory_that_is_not_there_reads_as_ones_and_swallows_writes() -> None:
    ram = bytearray(SIZE)
    ram[CODE : CODE + 3] = bytes.fromhex("48010e")  # add [rsi], rcx
    e, _ = emulator(ram)
    gpr = [1] * 16
    gpr[Reg.RSI] = SIZE + 0x100
    after = e.step(flat_state(gpr, 2))
    assert after.rflags & alu.STATUS == alu.CF | alu.ZF | alu.PF | alu.AF  # all ones + 1
    assert not any(ram[DATA:])


@pytest.mark.parametrize("code", ["0fae06", "0fb20e", "d906", "c416"])
def test_what_is_not_emulated_is_named(code: str) -> None:
    raw = bytes.fromhex(code)
    ram = bytearray(SIZE)
    ram[CODE : CODE + len(raw)] = raw
    e, _ = emulator(ram)
    if code == "c416":
        with pytest.raises(GuestFault, match="#UD"):
            e.step(flat_state([DATA] * 16, 2))
        return
    with pytest.raises(UnemulatedInstruction, match=rf"RIP 0x1000: {raw.hex(' ')}"):
        e.step(flat_state([DATA] * 16, 2))


@pytest.mark.parametrize(
    ("code", "attr", "address"),
    [
        ("678903", 0xC9B, 0x13FF0 & 0xFFFF),  # mov [bp+di], eax under 32-bit code: 16-bit addresses wrap at 64 KiB
        ("8903", 0x09B, 0x13FF0 & 0xFFFF),  # the same in 16-bit code, 2 bytes
        ("8907", 0xC9B, 0x4FF0),  # mov [edi], eax
    ],
)
def test_address_sizes(code: str, attr: int, address: int) -> None:
    raw = bytes.fromhex(code)
    ram = bytearray(SIZE)
    ram[CODE : CODE + len(raw)] = raw
    e, _ = emulator(ram)
    e.memory.vcpu.efer = 0
    gpr = [0] * 16
    gpr[Reg.RAX], gpr[Reg.RBP], gpr[Reg.RDI] = 0x8899AABB, 0xF000, 0x4FF0
    state = flat_state(gpr, 2, long=False)
    state.set_segments({Seg.CS: state.cs._replace(attr=attr)})
    e.step(state)
    width = 2 if attr == 0x09B else 4
    assert ram[address : address + width] == (0x8899AABB).to_bytes(4, "little")[:width]
