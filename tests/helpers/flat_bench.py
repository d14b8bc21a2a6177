# SPDX-License-Identifier: GPL-2.0-only
"""The emulator on flat memory, and Unicorn beside it as the judge of one instruction."""

from random import Random
from typing import Any

from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3 import Uc

from shadowmmu.machine.emulator import alu
from shadowmmu.machine.emulator.decode import Fetcher
from shadowmmu.machine.emulator.emulate import Emulator
from shadowmmu.machine.memory.linear_memory import GuestMemory
from shadowmmu.machine.seam import Reg, Segment, State, System, Table

CODE, DATA, STACK, SIZE = 0x1000, 0x4000, 0x8000, 0x10000
RSI_AT, RDI_AT, RSP_AT = DATA + 0x800, DATA + 0xFF0, STACK + 0x800
_UC_GPR = [
    getattr(x86_const, f"UC_X86_REG_{n}")
    for n in ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"]
]
LOGIC = {"OR", "AND", "XOR", "TEST"}
ROTATE = ["ROL", "ROR", "RCL", "RCR"]
SHIFT = ["SHL", "SHR", "SAR"]
_PRODUCT = alu.SF | alu.ZF | alu.AF | alu.PF
_COUNTED = alu.OF | alu.SF | alu.AF | alu.PF
_UNDEFINED = {
    **dict.fromkeys(("MUL", "IMUL"), _PRODUCT),
    **dict.fromkeys(("DIV", "IDIV"), alu.STATUS),
    **dict.fromkeys(("BSF", "BSR"), alu.STATUS & ~alu.ZF),
    **dict.fromkeys(("TZCNT", "LZCNT"), _COUNTED),
}


def undefined_flags(name: str, count: int, bits: int) -> int:
    """Flags the manual does not define after this instruction, a mnemonic or a code name of iced-x86's."""
    op = name.split("_")[0]
    if op in LOGIC:
        return alu.AF
    if op in ROTATE:
        return 0 if count == 1 else alu.OF
    if op in SHIFT or op in ("SHLD", "SHRD"):
        flags = alu.AF | (0 if count == 1 else alu.OF)
        return flags | (alu.CF if count > bits or (count == bits and op == "SAR") else 0)
    if op in ("BT", "BTS", "BTR", "BTC"):
        return alu.OF | alu.SF | alu.AF | alu.PF
    return _UNDEFINED.get(op, 0)


class FlatVcpu:
    """What the emulator needs of a vCPU: flat memory, no paging. `absent` pages fault."""

    def __init__(self, memory: bytearray) -> None:
        self.ram = memory
        self.cr0, self.efer, self.cr4 = 0x80000011, 0x500, 0
        self.absent: set[int] = set()
        self.exception: Any = None

    def gva_to_gpa(self, gva: int, access: int) -> int | None:
        if gva >> 12 in self.absent:
            self.exception = type("Fault", (), {"error_code": access & 6, "cr2": gva, "nested": False})
            return None
        return gva

    def read_emulated(self, gpa: int, size: int) -> bytes | None:
        return bytes(self.ram[gpa : gpa + size]) if gpa + size <= len(self.ram) else None

    def write_emulated(self, gpa: int, data: bytes) -> bool:
        if gpa + len(data) > len(self.ram):
            return False
        self.ram[gpa : gpa + len(data)] = data
        return True


class Vectors:
    """The vector registers."""

    def __init__(self) -> None:
        self.values = [0x1111_2222_3333_4444_5555_6666_7777_0000 + i for i in range(16)]

    def vector(self, number: int) -> int:
        return self.values[number]

    def set_vector(self, number: int, value: int) -> None:
        self.values[number] = value


def flat_state(gpr: list[int], flags: int, rip: int = CODE, long: bool = True) -> State:
    code = Segment(8, 0xA9B if long else 0xC9B, 0xFFFFFFFF, 0)
    data = Segment(0, 0xC93, 0xFFFFFFFF, 0)
    none = Segment(0, 0, 0, 0)
    return State(gpr, rip, flags, System((data, code, data, data, data, data), none, none, Table(0, 0), Table(0, 0), 0, 0, 0, 0))


class Pair:
    """One instruction on both."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.vectors, self.reference_vectors = Vectors(), list[int]()
        self.uc: Any = Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64, x86_const.UC_CPU_X86_EPYC_ROME)
        self.uc.mem_map(0, SIZE)
        self.memory = bytearray(random.randbytes(SIZE))
        self.memory[CODE : CODE + 0x1000] = bytes(0x1000)

    def registers(self) -> list[int]:
        random = self.random
        gpr = [random.choice((0, 1, (1 << 64) - 1, 1 << 31, random.getrandbits(64), random.getrandbits(8))) for _ in range(16)]
        gpr[Reg.RSI], gpr[Reg.RDI], gpr[Reg.RSP] = RSI_AT, RDI_AT, RSP_AT
        return gpr

    def run(self, code: bytes, gpr: list[int], flags: int, steps: int = 1) -> tuple[State, State, bytes]:
        """(emulated, reference, reference memory); the vector registers are left in `vectors` and `reference_vectors`."""
        self.memory[CODE : CODE + len(code)] = code
        before = bytes(self.memory)
        vcpu: Any = FlatVcpu(self.memory)
        memory = GuestMemory(vcpu, lambda gpa, size: None)
        self.vectors = Vectors()
        cpu: Any = self.vectors
        state = flat_state(list(gpr), flags)
        for _ in range(steps):
            state = Emulator(memory, Fetcher(memory), cpu).step(state)
            if state.rip != CODE:
                break
        reference, after = self.judge(code, gpr, flags, steps, before)
        return state, reference, after

    def judge(self, code: bytes, gpr: list[int], flags: int, steps: int = 1, before: bytes | None = None) -> tuple[State, bytes]:
        """What Unicorn makes of it, from memory as it is or was `before`."""
        uc = self.uc
        uc.mem_write(0, bytes(self.memory) if before is None else before)
        for register, value in zip(_UC_GPR, gpr, strict=True):
            uc.reg_write(register, value)
        for number, value in enumerate(Vectors().values):
            uc.reg_write(x86_const.UC_X86_REG_XMM0 + number, value)
        uc.reg_write(x86_const.UC_X86_REG_EFLAGS, flags)
        uc.ctl_flush_tb()
        uc.emu_start(CODE, CODE + len(code), 0, 0 if steps > 1 else 1)
        after = uc.reg_read(x86_const.UC_X86_REG_EFLAGS), uc.reg_read(x86_const.UC_X86_REG_RIP)
        self.reference_vectors = [uc.reg_read(x86_const.UC_X86_REG_XMM0 + number) for number in range(16)]
        reference = flat_state([uc.reg_read(r) for r in _UC_GPR], *after)
        return reference, bytes(uc.mem_read(0, SIZE))
