# SPDX-License-Identifier: GPL-2.0-only
"""Fetching and decoding the instruction at RIP, by iced-x86."""

from collections.abc import Callable, Container

from iced_x86 import (
    Code,
    CodeSize,
    Decoder,
    DecoderError,
    Instruction,
    MemorySizeExt,
    Mnemonic,
    OpKind,
    Register,
    RegisterExt,
    UsedMemory,
)

from shadowmmu.machine.memory.linear_memory import PAGE_SIZE, GuestFault, GuestMemory, NoMemory
from shadowmmu.machine.seam import MASK32, MASK64, Reg, Seg, State
from shadowmmu.x86.control import Efer
from shadowmmu.x86.vectors import UD

MAX_LENGTH = 15
_CACHE_SIZE = 4096
_LMA = int(Efer.LMA)
_IMMEDIATES = frozenset(getattr(OpKind, name) for name in dir(OpKind) if name.startswith("IMMEDIATE"))
_BRANCHES = frozenset((OpKind.NEAR_BRANCH16, OpKind.NEAR_BRANCH32, OpKind.NEAR_BRANCH64))
_NAMES = {getattr(Register, name): name for name in dir(Register) if name.isupper()}
_HIGH_BYTES: dict[int, Reg] = {Register.AH: Reg.RAX, Register.CH: Reg.RCX, Register.DH: Reg.RDX, Register.BH: Reg.RBX}
_SEGMENTS: dict[int, Seg] = {
    Register.ES: Seg.ES, Register.CS: Seg.CS, Register.SS: Seg.SS,
    Register.DS: Seg.DS, Register.FS: Seg.FS, Register.GS: Seg.GS,
}  # fmt: skip
_STRING_POINTERS = {  # operand kind -> (register, bytes of the address, in ES)
    OpKind.MEMORY_SEG_SI: (Reg.RSI, 2, False), OpKind.MEMORY_SEG_ESI: (Reg.RSI, 4, False), OpKind.MEMORY_SEG_RSI: (Reg.RSI, 8, False),
    OpKind.MEMORY_ESDI: (Reg.RDI, 2, True), OpKind.MEMORY_ESEDI: (Reg.RDI, 4, True), OpKind.MEMORY_ESRDI: (Reg.RDI, 8, True),
}  # fmt: skip


def _general_registers() -> dict[int, tuple[int, int]]:
    """iced register -> (index, bytes), for all but the high byte registers."""
    found = {}
    for register in _NAMES:
        if RegisterExt.is_gpr(register) and register not in _HIGH_BYTES:
            found[register] = RegisterExt.number(RegisterExt.full_register(register)), RegisterExt.size(register)
    return found


_GENERAL = _general_registers()
_ADDRESS_BITS = {CodeSize.CODE16: 16, CodeSize.CODE32: 32, CodeSize.CODE64: 64}
_MMX = {getattr(Register, f"MM{i}"): i for i in range(8)}
_VECTORS = {getattr(Register, f"XMM{i}"): i for i in range(16)}


class UnemulatedInstruction(Exception):
    """The guest executes, on memory the machine must emulate, an instruction that it does not emulate."""

    def __init__(self, rip: int, code: bytes, text: str = "") -> None:
        super().__init__(f"RIP {rip:#x}: {code.hex(' ')}{'  ' + text if text else ''} is not emulated")
        self.rip = rip
        self.code = code


class StaleCode(Exception):
    """The CPU did not execute what memory holds, but what it held when that was translated: the MMU has since set A or D
    in a table that is code, too. The instruction is to be executed again."""


def bitness(state: State, efer: int) -> int:
    """16, 32 or 64: the mode of the code segment."""
    if efer & _LMA and state.cs.long:
        return 64
    return 32 if state.cs.big else 16


_TABLE_WRITERS = frozenset(
    (Mnemonic.MOV, Mnemonic.XCHG, Mnemonic.OR, Mnemonic.AND, Mnemonic.BTS, Mnemonic.BTC, Mnemonic.CMPXCHG, Mnemonic.CMPXCHG8B)
)


def writes_tables(instruction: Instruction) -> bool:
    """Whether KVM takes it for one by which guests write page tables (x86_page_table_writing_insn): MOVS, ADD and PUSH are none."""
    return instruction.mnemonic in _TABLE_WRITERS


class Fetcher:
    """Fetches and decodes for one vCPU. `on_decoded` hears of each instruction that lies in one page, with its code."""

    def __init__(self, memory: GuestMemory, on_decoded: "Callable[[Operands, bytes], None] | None" = None) -> None:
        self.memory = memory
        self._on_decoded = on_decoded
        self._cache: dict[tuple[int, int, bytes], Instruction] = {}

    def fetch(self, state: State, mode: int, skip: int = 0) -> bytes:
        """Up to 15 bytes at RIP without the first `skip`, to the end of their page."""
        start = state.rip if mode == 64 else state.cs.base + state.rip
        linear = start + skip & self.memory.mask
        return self.memory.fetch(linear, min(MAX_LENGTH - skip, PAGE_SIZE - linear % PAGE_SIZE), state.cpl == 3)

    def peek(self, state: State) -> int:
        """The byte at RIP, or -1 if it cannot be fetched."""
        try:
            return self.fetch(state, bitness(state, self.memory.vcpu.efer))[0]
        except (GuestFault, NoMemory):
            return -1

    def decode(self, state: State, expected: Container[int] | None = None) -> Instruction:
        """The instruction at RIP; raises GuestFault if it cannot be fetched or is none, StaleCode if its code is none of `expected`."""
        mode = bitness(state, self.memory.vcpu.efer)
        code = self.fetch(state, mode)
        found = self._decode(mode, state.rip, code)
        if found is None and len(code) < MAX_LENGTH:  # it goes on in the next page
            found = self._decode(mode, state.rip, code + self.fetch(state, mode, len(code)))
        if found is None or found.code == Code.INVALID:
            raise GuestFault(UD)
        if expected is not None and found.code not in expected:
            raise StaleCode
        if self._on_decoded is not None and found.len <= len(code):
            self._on_decoded(Operands(found, state, self.memory.vcpu.efer), code[: found.len])
        return found

    def _decode(self, mode: int, rip: int, code: bytes) -> Instruction | None:
        """None: more bytes are needed."""
        key = (mode, rip, code)
        found = self._cache.get(key)
        if found is None:
            decoder = Decoder(mode, code, ip=rip)
            found = decoder.decode()
            if decoder.last_error == DecoderError.NO_MORE_BYTES:
                return None
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[key] = found
        return found


class Operands:
    """The operands of one instruction on one state: registers, immediates, and addresses of memory."""

    __slots__ = ("efer", "instruction", "mask", "mode", "state")

    def __init__(self, instruction: Instruction, state: State, efer: int) -> None:
        self.instruction = instruction
        self.state = state
        self.efer = efer
        self.mode = bitness(state, efer)
        self.mask = MASK64 if efer & _LMA else MASK32

    def is_memory(self, index: int) -> bool:
        kind = self.instruction.op_kind(index)
        return kind == OpKind.MEMORY or kind in _STRING_POINTERS

    def string_pointer(self, index: int) -> Reg | None:
        """RSI or RDI, if the operand is where a string instruction's pointer points."""
        pointer = _STRING_POINTERS.get(self.instruction.op_kind(index))
        return None if pointer is None else pointer[0]

    def memory_operand(self) -> int | None:
        """Index of the explicit memory operand."""
        for index in range(self.instruction.op_count):
            if self.instruction.op_kind(index) == OpKind.MEMORY:
                return index
        return None

    def size(self, index: int) -> int:
        """Bytes of an operand; an immediate's is that of the first operand."""
        instruction = self.instruction
        if self.is_memory(index):
            return int(MemorySizeExt.size(instruction.memory_size))
        if instruction.op_kind(index) == OpKind.REGISTER:
            return int(RegisterExt.size(instruction.op_register(index)))
        return self.size(0)

    def vector(self, index: int) -> int | None:
        """Number of an XMM register operand."""
        return _VECTORS.get(self.instruction.op_register(index)) if self.instruction.op_kind(index) == OpKind.REGISTER else None

    def mmx(self, index: int) -> int | None:
        """Number of an MMX register operand."""
        return _MMX.get(self.instruction.op_register(index)) if self.instruction.op_kind(index) == OpKind.REGISTER else None

    def value(self, index: int) -> int:
        """A register, segment selector or immediate; unsigned."""
        kind = self.instruction.op_kind(index)
        if kind == OpKind.REGISTER:
            return self.register(self.instruction.op_register(index))
        if kind in _IMMEDIATES:
            return int(self.instruction.immediate(index)) & MASK64
        if kind in _BRANCHES:
            return int(self.instruction.near_branch_target)
        raise ValueError(f"operand {index} has no value of its own")

    def register(self, register: int) -> int:
        general = _GENERAL.get(register)
        if general is not None:
            return self.state.gpr[general[0]] & (1 << 8 * general[1]) - 1
        high = _HIGH_BYTES.get(register)
        if high is not None:
            return self.state.gpr[high] >> 8 & 0xFF
        return self.state.system.segments[_SEGMENTS[register]].selector

    def set_register(self, index: int, value: int) -> None:
        """Write a general register operand: 32 bits clear the upper half, 8 and 16 leave the rest alone."""
        register = self.instruction.op_register(index)
        high = _HIGH_BYTES.get(register)
        if high is not None:
            self.state.gpr[high] = self.state.gpr[high] & ~0xFF00 | (value & 0xFF) << 8
            return
        number, size = _GENERAL[register]
        set_general(self.state, number, size, value)

    def is_general(self, index: int) -> bool:
        register = self.instruction.op_register(index)
        return self.instruction.op_kind(index) == OpKind.REGISTER and (register in _GENERAL or register in _HIGH_BYTES)

    def segment_register(self, index: int) -> Seg | None:
        """A segment register operand."""
        return _SEGMENTS.get(self.instruction.op_register(index)) if self.instruction.op_kind(index) == OpKind.REGISTER else None

    def address_size(self) -> int:
        """Bytes of an effective address."""
        instruction = self.instruction
        for index in range(instruction.op_count):
            if instruction.op_kind(index) in _STRING_POINTERS:
                return _STRING_POINTERS[instruction.op_kind(index)][1]
        for register in (instruction.memory_base, instruction.memory_index):
            if register != Register.NONE:
                return int(RegisterExt.size(register))
        return int(instruction.memory_displ_size) or self.mode // 8

    def linear(self, index: int, offset: int = 0) -> int:
        """Linear address of a memory operand, `offset` bytes added to the effective address."""
        instruction = self.instruction
        pointer = _STRING_POINTERS.get(instruction.op_kind(index))
        if pointer is not None:
            register, size, in_es = pointer
            segment = Register.ES if in_es else instruction.memory_segment
            effective = self.state.gpr[register]
        else:
            size, segment, effective = self.address_size(), instruction.memory_segment, self._effective()
        effective = (effective + offset) & (1 << 8 * size) - 1
        return (self.segment_base(_SEGMENTS[segment]) + effective) & self.mask

    def used_address(self, used: UsedMemory) -> int:
        """Linear address of memory that iced-x86 says the instruction uses, stacks and string pointers included."""
        effective = int(used.displacement)  # of an address relative to RIP: already the target
        if RegisterExt.is_gpr(used.base):
            effective += self.register(used.base)
        if RegisterExt.is_gpr(used.index):
            effective += self.register(used.index) * used.scale
        effective &= (1 << 8 * self.used_address_size(used)) - 1
        return (self.segment_base(_SEGMENTS[used.segment]) + effective) & self.mask

    def used_address_size(self, used: UsedMemory) -> int:
        """Bytes of its effective address."""
        return _ADDRESS_BITS.get(used.address_size, self.mode) // 8

    def _effective(self) -> int:
        instruction = self.instruction
        address = int(instruction.memory_displacement)  # of a RIP-relative operand: already the target
        if instruction.memory_base != Register.NONE and not instruction.is_ip_rel_memory_operand:
            address += self.register(instruction.memory_base)
        if instruction.memory_index != Register.NONE:
            address += self.register(instruction.memory_index) * instruction.memory_index_scale
        return address

    def segment(self, register: int) -> Seg:
        """Index of a segment register."""
        return _SEGMENTS[register]

    def segment_base(self, segment: Seg) -> int:
        if self.mode == 64 and segment not in (Seg.FS, Seg.GS):
            return 0
        return self.state.system.segments[segment].base


def set_general(state: State, number: int, size: int, value: int) -> None:
    """Write `size` bytes of a general register, in the way of the architecture."""
    if size >= 4:
        state.gpr[number] = value & (1 << 8 * size) - 1
    else:
        mask = (1 << 8 * size) - 1
        state.gpr[number] = state.gpr[number] & ~mask | value & mask
