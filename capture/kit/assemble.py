# SPDX-License-Identifier: GPL-2.0-only
"""The few instructions that guests are made of, for 16-, 32- and 64-bit code, encoded by iced-x86.

Methods that put an instruction give its address. `WORD` in an instruction's name stands for the register width of the
code: 64 in long mode, else 32.
"""

from __future__ import annotations

from typing import Any

from iced_x86 import Code, Encoder, Instruction, MemoryOperand, Register

from kit.memory import Memory

NARROW = {"ax": Register.EAX, "bx": Register.EBX, "cx": Register.ECX, "dx": Register.EDX, "si": Register.ESI, "di": Register.EDI,
          "sp": Register.ESP}  # fmt: skip
WIDE = {"ax": Register.RAX, "bx": Register.RBX, "cx": Register.RCX, "dx": Register.RDX, "si": Register.RSI, "di": Register.RDI,
        "sp": Register.RSP}  # fmt: skip
CONTROL = {0: Register.CR0, 2: Register.CR2, 3: Register.CR3, 4: Register.CR4}


class Assembler:
    """Writes code into a memory image from `here` on."""

    def __init__(self, memory: Memory, bits: int, here: int) -> None:
        self.memory = memory
        self.bits = bits
        self.here = here
        self.word = 8 if bits == 64 else 4
        """Bytes of a register, and of a stack slot."""
        self.registers = WIDE if bits == 64 else NARROW

    def put(self, instruction: Instruction) -> int:
        encoder = Encoder(self.bits)
        encoder.encode(instruction, self.here)
        return self.put_bytes(encoder.take_buffer())

    def put_bytes(self, code: bytes) -> int:
        at = self.here
        self.memory.write(at, code)
        self.here += len(code)
        return at

    def land(self, hole: int) -> None:
        """Let the 32-bit immediate at `hole` be the address that comes next."""
        self.memory.write_word(hole, self.here, 4)

    # --- moves

    def mov(self, register: str, value: int) -> int:
        """32 bits; in long mode the upper half becomes 0."""
        return self.put(Instruction.create_reg_u32(Code.MOV_R32_IMM32, NARROW[register], value & 0xFFFF_FFFF))

    def mov_address(self, register: str) -> int:
        """`register` = an address that `land` will give: the hole for it."""
        self.mov(register, 0)
        return self.here - 4

    def mov_word(self, register: str, value: int) -> int:
        """A whole register."""
        if self.bits != 64:
            return self.mov(register, value)
        return self.put(Instruction.create_reg_u64(Code.MOV_R64_IMM64, WIDE[register], value & (1 << 64) - 1))

    def mov_register(self, to: str, source: str) -> int:
        return self.put(Instruction.create_reg_reg(self._code("MOV_RMWORD_RWORD"), self.registers[to], self.registers[source]))

    def load_stack(self, register: str, offset: int) -> int:
        return self.put(Instruction.create_reg_mem(self._code("MOV_RWORD_RMWORD"), self.registers[register], self._stack(offset)))

    def store_stack(self, offset: int, register: str) -> int:
        return self.put(Instruction.create_mem_reg(self._code("MOV_RMWORD_RWORD"), self._stack(offset), self.registers[register]))

    # --- guest memory: in long mode the address goes through rbx, so that it may have 64 bits

    def load(self, va: int) -> int:
        """eax = 32 bits at `va`."""
        if self.bits == 64:
            self.mov_word("bx", va)
            return self.put(Instruction.create_reg_mem(Code.MOV_R32_RM32, Register.EAX, MemoryOperand(Register.RBX)))
        return self.put(Instruction.create_reg_mem(Code.MOV_EAX_MOFFS32, Register.EAX, self._at(va)))

    def store(self, va: int, value: int, size: int) -> int:
        """`size` 4, or 8 in long mode."""
        if self.bits != 64:
            return self.put(Instruction.create_mem_u32(Code.MOV_RM32_IMM32, self._at(va), value & 0xFFFF_FFFF))
        self.mov_word("bx", va)
        at_rbx = MemoryOperand(Register.RBX)
        if size == 4:
            return self.put(Instruction.create_mem_u32(Code.MOV_RM32_IMM32, at_rbx, value & 0xFFFF_FFFF))
        self.mov_word("ax", value)
        return self.put(Instruction.create_mem_reg(Code.MOV_RM64_R64, at_rbx, Register.RAX))

    def invlpg(self, va: int) -> int:
        if self.bits != 64:
            return self.put(Instruction.create_mem(Code.INVLPG_M, self._at(va)))
        self.mov_word("bx", va)
        return self.put(Instruction.create_mem(Code.INVLPG_M, MemoryOperand(Register.RBX)))

    # --- memory at a fixed 32-bit address, by one instruction, in either width of code

    def load_fixed(self, address: int) -> int:
        code = Code.MOV_R32_RM32 if self.bits == 64 else Code.MOV_EAX_MOFFS32
        return self.put(Instruction.create_reg_mem(code, Register.EAX, self._at(address)))

    def store_fixed(self, address: int, value: int) -> int:
        return self.put(Instruction.create_mem_u32(Code.MOV_RM32_IMM32, self._at(address), value & 0xFFFF_FFFF))

    def store_register(self, address: int, register: str) -> int:
        return self.put(Instruction.create_mem_reg(Code.MOV_RM32_R32, self._at(address), NARROW[register]))

    def add_fixed(self, address: int, value: int) -> int:
        return self.put(Instruction.create_mem_i32(Code.ADD_RM32_IMM8, self._at(address), value))

    # --- the rest

    def out(self, port: int) -> int:
        """Give eax to the host."""
        return self.put(Instruction.create_u32_reg(Code.OUT_IMM8_EAX, port, Register.EAX))

    def push(self, register: str) -> int:
        return self.put(Instruction.create_reg(self._code("PUSH_RWORD"), self.registers[register]))

    def pop(self, register: str) -> int:
        return self.put(Instruction.create_reg(self._code("POP_RWORD"), self.registers[register]))

    def push_byte(self, value: int) -> int:
        return self.put(Instruction.create_i32(self._code("PUSHQ_IMM8" if self.bits == 64 else "PUSHD_IMM8"), value))

    def push_value(self, value: int) -> int:
        return self.put(Instruction.create_i32(self._code("PUSHQ_IMM32" if self.bits == 64 else "PUSHD_IMM32"), value))

    def push_address(self) -> int:
        """Push an address that `land` will give: the hole for it."""
        self.push_value(0)
        return self.here - 4

    def drop(self, slots: int) -> int:
        """Take `slots` words off the stack."""
        return self.put(Instruction.create_reg_i32(self._code("ADD_RMWORD_IMM8"), self.registers["sp"], slots * self.word))

    def shift_right(self, register: str, count: int) -> int:
        return self.put(Instruction.create_reg_i32(self._code("SHR_RMWORD_IMM8"), self.registers[register], count))

    def jump(self, register: str) -> int:
        return self.put(Instruction.create_reg(self._code("JMP_RMWORD"), self.registers[register]))

    def call(self, register: str) -> int:
        return self.put(Instruction.create_reg(self._code("CALL_RMWORD"), self.registers[register]))

    def interrupt(self, vector: int) -> int:
        return self.put(Instruction.create_u32(Code.INT_IMM8, vector))

    def write_control(self, number: int) -> int:
        """CRn = eax or rax."""
        return self.put(Instruction.create_reg_reg(self._code("MOV_CR_RWORD"), CONTROL[number], self.registers["ax"]))

    def read_control(self, number: int) -> int:
        return self.put(Instruction.create_reg_reg(self._code("MOV_RWORD_CR"), self.registers["ax"], CONTROL[number]))

    def interrupt_return(self) -> int:
        return self.put(Instruction.create(Code.IRETQ if self.bits == 64 else Code.IRETD))

    def wrmsr(self) -> int:
        return self.put(Instruction.create(Code.WRMSR))

    def hlt(self) -> int:
        return self.put(Instruction.create(Code.HLT))

    def vmrun(self) -> int:
        return self.put(Instruction.create(Code.VMRUNQ if self.bits == 64 else Code.VMRUND))

    def vmmcall(self) -> int:
        return self.put(Instruction.create(Code.VMMCALL))

    def invlpga(self) -> int:
        return self.put(Instruction.create(Code.INVLPGAQ if self.bits == 64 else Code.INVLPGAD))

    def _code(self, name: str) -> Any:
        return getattr(Code, name.replace("WORD", str(self.word * 8)))

    def _at(self, address: int) -> MemoryOperand:
        return MemoryOperand(displ=address, displ_size=self.bits // 8)

    def _stack(self, offset: int) -> MemoryOperand:
        return MemoryOperand(self.registers["sp"], displ=offset, displ_size=1)
