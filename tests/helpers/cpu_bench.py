# SPDX-License-Identifier: GPL-2.0-only
"""The Unicorn back end on bare memory: no engine, no machine."""

import ctypes
import mmap
import struct

from shadowmmu.machine.cpu.unicorn_cpu import UnicornCpu
from shadowmmu.machine.seam import Controls, ExitKind, Reg, Segment, State, System, Table

HIGH = 1 << 32
SIZE = 4 << 20
CODE, STACK, DATA = 0x10000, 0x20000, 0x30000
TABLES = 0x100000
PAE_ROOT = 1 << 31
CONTROLS = Controls(0x80010033, HIGH + TABLES, 0x660, 0x1D01)
PAE_CONTROLS = Controls(0x80010011, PAE_ROOT, 0x60, 0x1801)
REAL_CONTROLS = PAE_CONTROLS._replace(cr0=0x80010010)
"""Paged real mode."""


class Ports:
    def __init__(self) -> None:
        self.log: list[tuple[int, ...]] = []

    def read(self, port: int, size: int) -> int:
        self.log.append((port, size))
        return 0x1234567890 & (1 << 8 * size) - 1

    def write(self, port: int, size: int, value: int) -> None:
        self.log.append((port, size, value))


class Bench:
    """A CPU on memory whose first 4 MiB of linear addresses map host memory above 4 GiB, by 4-level tables and by PAE ones."""

    def __init__(self) -> None:
        self.ram = mmap.mmap(-1, SIZE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.ram))
        self.ports = Ports()
        self.allowed = True
        self.low = mmap.mmap(-1, 0x1000)
        struct.pack_into("<Q", self.low, 0, HIGH + TABLES + 0x2001)
        regions = [(PAE_ROOT, 0x1000, ctypes.addressof(ctypes.c_char.from_buffer(self.low))), (HIGH, SIZE, address)]
        self.cpu = UnicornCpu(regions, self.ports, lambda state, port, size: None if self.allowed else ExitKind.PORT_DENIED)
        self.put(TABLES, HIGH + TABLES + 0x1007, 8)
        self.put(TABLES + 0x1000, HIGH + TABLES + 0x2007, 8)
        for i in range(2):
            self.put(TABLES + 0x2000 + 8 * i, HIGH + i * 0x200000 | 0x87, 8)

    def put(self, at: int, value: int, size: int) -> None:
        self.ram[at : at + size] = value.to_bytes(size, "little")

    def state(self, code: str, *, user: bool = False) -> State:
        raw = bytes.fromhex(code)
        self.ram[CODE : CODE + len(raw)] = raw
        dpl = 0x60 if user else 0
        data = Segment(0x20 | (3 if user else 0), 0xC93 | dpl, 0xFFFFFFFF, 0)
        cs = Segment(0x28 | (3 if user else 0), 0xA9B | dpl, 0xFFFFFFFF, 0)
        fs, gs = data._replace(base=0x1111_2222_3333), data._replace(base=0x4444_5555_6666)
        system = System(
            (data, cs, data, data, fs, gs),
            Segment(0x48, 0x82, 0x77, 0x5000),
            Segment(0x40, 0x8B, 0x67, 0x6000),
            Table(0x7000, 0x3F),
            Table(0x8000, 0xFFF),
            3 if user else 0,
            0xFFFF0FF0,
            0x400,
            0x7777_8888_9999,
            0x0013000800000000,
            0x10,
            0x20,
            0x30,
        )
        gpr = [0x0101010101010101 * i for i in range(16)]
        gpr[Reg.RSP], gpr[Reg.RDI] = STACK, DATA
        return State(gpr, CODE, 0x246, system)
