# SPDX-License-Identifier: GPL-2.0-only
"""Emulated instructions that load segment registers, reach ports, jump far or move MMX registers."""

import struct

import pytest
from flat_bench import CODE, DATA, SIZE, FlatVcpu, flat_state

from shadowmmu.machine.emulator.decode import Fetcher, UnemulatedInstruction
from shadowmmu.machine.emulator.emulate import Emulator
from shadowmmu.machine.memory.linear_memory import GuestFault, GuestMemory
from shadowmmu.machine.seam import MASK64, Reg, Seg, State, Table

_GDT = DATA + 0x1000
_DATA_0, _DATA_3, _CODE_64, _CODE_32, _TSS, _LDT, _ABSENT = 0x08, 0x13, 0x18, 0x20, 0x28, 0x38, 0x48
_DESCRIPTORS = {
    _DATA_0: 0x00CF92000000FFFF, _DATA_3 & ~3: 0x00CFF2000000FFFF, _CODE_64: 0x00AF9A000000FFFF, _CODE_32: 0x00CF9A000000FFFF,
    _TSS: 0x0000890012340067, _LDT: 0x000082005678001F, _ABSENT: 0x00CF12000000FFFF,
}  # fmt: skip


class Ports:
    """Reads as the number of accesses so far; remembers what is written."""

    def __init__(self) -> None:
        self.reads, self.written = 0, list[tuple[int, int, int]]()

    def read(self, port: int, size: int) -> int:
        self.reads += 1
        return self.reads

    def write(self, port: int, size: int, value: int) -> None:
        self.written.append((port, size, value))


class Cpu:
    """MMX registers and ports."""

    def __init__(self) -> None:
        self.registers = [0x1000 + i for i in range(8)]
        self.open_ports: Ports | None = Ports()

    def mmx(self, number: int) -> int:
        return self.registers[number]

    def set_mmx(self, number: int, value: int) -> None:
        self.registers[number] = value


class Bench:
    """One instruction at CODE, its memory operand at [rsi]."""

    def __init__(self, code: str, operand: bytes = b"", *, long: bool = True) -> None:
        self.ram, self.cpu = bytearray(SIZE), Cpu()
        for selector, descriptor in _DESCRIPTORS.items():
            struct.pack_into("<Q", self.ram, _GDT + selector, descriptor)
        raw = bytes.fromhex(code)
        self.ram[CODE : CODE + len(raw)] = raw
        self.ram[DATA : DATA + len(operand)] = operand
        self.vcpu = FlatVcpu(self.ram)
        self.vcpu.efer = 0x500 if long else 0
        gpr = [0] * 16
        gpr[Reg.RSI] = gpr[Reg.RDI] = DATA
        self.state = flat_state(gpr, 2, long=long)
        self.state.system = self.state.system._replace(gdtr=Table(_GDT, 0x4F))

    def step(self, *, has_la57: bool = False) -> State:
        memory = GuestMemory(self.vcpu, lambda gpa, size: None, has_la57=has_la57)
        return Emulator(memory, Fetcher(memory), self.cpu).step(self.state)


def word(value: int) -> bytes:
    return struct.pack("<H", value)


def test_ltr_marks_the_tss_busy_and_reads_its_whole_base() -> None:
    bench = Bench("0f001e", word(_TSS))
    struct.pack_into("<Q", bench.ram, _GDT + _TSS + 8, 0xFFFF8000)
    tr = bench.step().system.tr
    assert (tr.selector, tr.base, tr.limit) == (_TSS, 0xFFFF8000_00001234, 0x67)
    assert bench.ram[_GDT + _TSS + 5] == 0x8B
    with pytest.raises(GuestFault, match="#GP error code 0x28"):
        bench.step()


@pytest.mark.parametrize(("bits", "bad"), [(48, 1 << 48), (57, 1 << 60)])
def test_bases_are_canonical_in_the_widest_mode_of_the_cpu(bits: int, bad: int) -> None:
    good = -1 << (bits - 1) & MASK64
    for code, register in (("0f0116", "gdtr"), ("0f011e", "idtr")):
        step = Bench(code, struct.pack("<HQ", 0x77, good)).step
        assert getattr(step(has_la57=bits == 57).system, register) == Table(good, 0x77)
        with pytest.raises(GuestFault, match="#GP error code 0x0"):
            Bench(code, struct.pack("<HQ", 0x77, bad)).step(has_la57=bits == 57)
    bench = Bench("0f001e", word(_TSS))
    struct.pack_into("<Q", bench.ram, _GDT + _TSS + 8, bad >> 32)
    with pytest.raises(GuestFault, match="#GP error code 0x28"):
        bench.step(has_la57=bits == 57)


def test_a_table_of_16_bit_operands_has_a_short_base() -> None:
    assert Bench("660f0116", struct.pack("<HI", 0x77, 0x12345678), long=False).step().system.gdtr == Table(0x345678, 0x77)
    assert Bench("0f0116", struct.pack("<HI", 0x77, 0x12345678), long=False).step().system.gdtr == Table(0x12345678, 0x77)
    bench = Bench("0f0116", bytes(10))
    bench.state.system = bench.state.system._replace(cpl=3)
    with pytest.raises(GuestFault, match="#GP"):
        bench.step()


def test_lldt_loads_a_table_or_none() -> None:
    assert Bench("0f0016", word(_LDT)).step().system.ldtr[0:4:2] == (_LDT, 0x1F)
    assert Bench("0f0016", word(0)).step().system.ldtr.limit == 0
    for selector in (_TSS, _LDT | 4, 0x50):
        with pytest.raises(GuestFault, match="#GP"):
            Bench("0f0016", word(selector)).step()


@pytest.mark.parametrize(
    ("code", "selector", "fault"),
    [
        ("8e16", _DATA_0, ""),
        ("8e16", 0, ""),
        ("8e16", 3, "#GP error code 0x0"),
        ("8e16", _DATA_0 | 3, "#GP error code 0x8"),
        ("8e16", _CODE_64, "#GP error code 0x18"),
        ("8e16", _ABSENT, "#SS error code 0x48"),
        ("8e1e", _ABSENT, "#NP error code 0x48"),
        ("8e1e", _DATA_3, ""),
        ("8e1e", _TSS, "#GP error code 0x28"),
        ("8e1e", 0x50, "#GP error code 0x50"),
        ("8e0e", _CODE_64, "#UD"),
    ],
)
def test_segment_registers_from_memory(code: str, selector: int, fault: str) -> None:
    bench = Bench(code, word(selector))
    if fault:
        with pytest.raises(GuestFault, match=fault):
            bench.step()
        return
    after = bench.step()
    which = Seg.SS if code == "8e16" else Seg.DS
    assert after.system.segments[which].selector == selector and after.rip == CODE + 2
    assert not selector & ~3 or bench.ram[_GDT + (selector & ~7) + 5] & 1, "accessed"


def test_a_far_jump_through_memory() -> None:
    bench = Bench("48ff2e", struct.pack("<QH", 0xFFFF8000_00002000, _CODE_64))
    after = bench.step()
    assert (after.rip, after.cs.selector, after.cs.long) == (0xFFFF8000_00002000, _CODE_64, True)
    with pytest.raises(GuestFault, match="#GP"):
        Bench("48ff2e", struct.pack("<QH", 1 << 50, _CODE_64)).step()
    with pytest.raises(GuestFault, match="#GP error code 0x8"):
        Bench("ff2e", struct.pack("<IH", 0x2000, _DATA_0)).step()
    after = Bench("ff2e", struct.pack("<IH", 0x2000, _CODE_32), long=False).step()
    assert (after.rip, after.cs.selector, after.cs.big) == (0x2000, _CODE_32, True)


def test_strings_of_ports() -> None:
    bench = Bench("f36c")  # rep insb
    bench.state.gpr[Reg.RCX], bench.state.gpr[Reg.RDX] = 3, 0x80
    after = bench.step()
    assert (bytes(bench.ram[DATA : DATA + 3]), after.gpr[Reg.RCX], after.gpr[Reg.RDI]) == (b"\1\2\3", 0, DATA + 3)
    bench = Bench("6f", struct.pack("<I", 0x12345678))  # outsd
    bench.state.gpr[Reg.RDX] = 0x90
    assert bench.step().gpr[Reg.RSI] == DATA + 4 and bench.cpu.open_ports is not None
    assert bench.cpu.open_ports.written == [(0x90, 4, 0x12345678)]
    bench.cpu.open_ports = None
    with pytest.raises(UnemulatedInstruction):
        bench.step()


def test_mmx_registers_and_memory() -> None:
    bench = Bench("0f7f0e")  # movq [rsi], mm1
    bench.step()
    assert bench.ram[DATA : DATA + 8] == struct.pack("<Q", 0x1001)
    bench = Bench("0f6f16", struct.pack("<Q", 0x1122334455667788))  # movq mm2, [rsi]
    bench.step()
    assert bench.cpu.registers[2] == 0x1122334455667788
