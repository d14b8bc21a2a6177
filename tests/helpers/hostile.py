# SPDX-License-Identifier: GPL-2.0-only
"""Guests made of hostile code: random bytes and the worst instructions, in tables that were scribbled over.

A guest is 64 chunks of 64 bytes. Whatever faults, its handler goes on with the next chunk and halts after the last, so
that much of the code is met; a guest that ruins its handler ends in a triple fault. All of it follows from a seed.

Memory, from 0 to 4 MiB: IDT, GDT and TSS, handler, counter, chunks, page tables from `TABLES`, random bytes here and there, UD2 elsewhere.
"""

from __future__ import annotations

import random
import struct

from shadowmmu.machine.loader import Guest, Loaded, Piece
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.seam import Segment, State, System, Table
from shadowmmu.x86.control import Cr0, Cr4, Efer

MEMORY = 4 << 20
IVT, HANDLER, GDT, IDT, COUNTER, STACK, CODE, TABLES, VMCB = 0, 0x2000, 0x3000, 0x4000, 0x5000, 0x7000, 0x8000, 0x30000, 0x20000
CHUNKS, CHUNK = 64, 64
ON = int(Cr0.PG | Cr0.PE | Cr0.ET)
REGISTERS = {  # CR0, CR4, EFER
    "real": (int(Cr0.ET), 0, 0),
    "unpaged": (int(Cr0.PE | Cr0.ET), 0, 0),
    "2-level": (ON, int(Cr4.PSE), 0),
    "pae": (ON | int(Cr0.WP), int(Cr4.PAE), int(Efer.NXE)),
    "4-level": (ON | int(Cr0.WP), int(Cr4.PAE), int(Efer.LME | Efer.LMA | Efer.NXE)),
    "5-level": (ON, int(Cr4.PAE | Cr4.LA57), int(Efer.LME | Efer.LMA | Efer.NXE)),
}
SHIFTS = {"2-level": (22, 12), "pae": (30, 21, 12), "4-level": (39, 30, 21, 12), "5-level": (48, 39, 30, 21, 12)}
HANDLERS = {
    16: "bc0070 31c0 8ed8 ff060050 a10050 3d4000 7308 c1e006 050080 ffe0 f4",
    32: "bc00700000 ff0500500000 a100500000 3d40000000 730a c1e006 0500800000 ffe0 f4",
    64: "48c7c400700000 ff042500500000 8b042500500000 3d40000000 730a c1e006 0500800000 ffe0 f4",
}
ADDRESSES = (
    *range(TABLES, TABLES + 0x6000, 0x1000), TABLES + 8, TABLES + 0x1018, TABLES + 0x2FFC, MEMORY - 2, MEMORY, MEMORY - 0x1000,
    CODE, CODE + 0x7FE, IDT, GDT, HANDLER, VMCB, 0xFEE00000, 0xFFFFFFFC, 0xFFFFF000, 0x80000000, 0x1FFFFE, 0xA0000,
)  # fmt: skip
REGISTER_VALUES = (
    0,
    0x11,
    0x80000011,
    0x80010011,
    0xE0000011,
    0x10,
    0x20,
    0x30,
    0x1020,
    0xA0,
    0x300020,
    0x20020,
    0x100,
    0x500,
    0x900,
    0x1D00,
    0x40000,
)
INSTRUCTIONS = (  # EAX holds an address, a register's value or anything
    "0f22c0", "0f22d8", "0f22e0", "b9800000c0 31d2 0f30", "0f01f0", "0f06", "0f20c0", "0f20d8", "0f20d0", "0f0138",
    "0f0138 8b08",  # registers
    "8908", "8b08", "0108", "8608", "f00fb108", "0fc708", "0fae00", "0f1100", "ff10", "ffe0", "ff30", "8f00", "0fba28 05",  # memory
    "f3a4", "f3ab", "f3a5", "f3a6", "f2ae", "f3aa", "fd f3a4 fc", "6c", "f36e", "60", "61", "c8000101", "0fa2", "0f32",
    "0f0118", "0f0110", "0f0100", "0f00d8", "0f00d0", "8ed8", "8ed0", "8ee8", "ea00800000 0800", "9a00800000 1000", "cb", "cf",
    "48cf", "cd80", "cd0e",
    "cc", "ce", "0f05", "0f07", "0f34", "0f35", "0f0b", "f1", "e680", "e480", "9c", "9d", "fa", "fb", "f390",
    "0f01d8", "0f01d9", "0f01da", "0f01db", "0f01dc", "0f01dd", "0f01df", "0f09", "0f01c8",
)  # fmt: skip


def width(mode: str) -> int:
    return {"real": 16, "4-level": 64, "5-level": 64}.get(mode, 32)


# --- its code


def instruction(choose: random.Random) -> bytes:
    """A few bytes that do harm, often with an address or a register's value loaded before."""
    kind = choose.random()
    if kind < 0.15:
        return choose.randbytes(choose.randrange(1, 8))
    loads = b""
    if kind < 0.9:
        value = choose.choice((choose.choice(ADDRESSES), choose.choice(ADDRESSES), choose.choice(REGISTER_VALUES), choose.getrandbits(32)))
        loads = b"\xb8" + struct.pack("<I", value)
    if choose.random() < 0.3:
        loads += b"\xb9" + struct.pack("<I", choose.choice((1, 8, 0x400, 0x1801, choose.randrange(0x3000))))
        loads += b"\xbf" + struct.pack("<I", choose.choice(ADDRESSES)) + b"\xbe" + struct.pack("<I", choose.choice(ADDRESSES))
    return loads + bytes.fromhex(choose.choice(INSTRUCTIONS))


def chunk(choose: random.Random) -> bytes:
    code = b""
    while len(code) < CHUNK:
        code += instruction(choose)
    return code[:CHUNK].replace(b"\x0f\x31", b"\x0f\x0b").replace(b"\x0f\x01\xf9", b"\x0f\x0b\x90")  # time counts exits


# --- its tables


def tables(mode: str, choose: random.Random) -> bytes:
    """Tables that map the first 4 MiB to themselves, page by page; the root is the first. A few entries go bad."""
    size = 4 if mode == "2-level" else 8
    steps = SHIFTS[mode]
    content = bytearray(0x8000)
    made = {(0, 0): 0}  # offset of the table for (depth, prefix of addresses), the root first

    def store(at: int, value: int) -> None:
        content[at : at + size] = value.to_bytes(size, "little")

    for address in range(0, MEMORY, 0x1000):
        table = 0
        for depth, shift in enumerate(steps[:-1]):
            prefix = (depth + 1, address >> shift)
            if prefix not in made:
                made[prefix] = len(made) << 12
                store(
                    table + (address >> shift) % (0x1000 // size) * size, TABLES + made[prefix] | (1 if mode == "pae" and not depth else 7)
                )
            table = made[prefix]
        store(table + (address >> 12) % (0x1000 // size) * size, address | 7)
    for _ in range(choose.choice((0, 1, 3, 10, 40))):
        store(choose.randrange(len(content) // size) * size, entry(choose, size))
    return bytes(content)


def entry(choose: random.Random, size: int) -> int:
    frame = choose.choice((*ADDRESSES, choose.randrange(MEMORY), choose.getrandbits(52), 1 << choose.randrange(12, 52)))
    value = choose.choice((frame & -0x1000 | choose.choice((0, 1, 3, 5, 7, 0x83, 0x87, 0x1E7)), choose.getrandbits(64), 0))
    return value & (1 << 8 * size) - 1


# --- the whole


def descriptors(mode: str) -> list[Piece]:
    code = {16: 0x00009B, 32: 0xCF9B, 64: 0xAF9B}[width(mode)]
    segments = [0, *(0xFFFF | (access & 0xFF) << 40 | (access >> 8) << 48 for access in (code, 0xCF93, 0xCFFB, 0xCFF3, 0x008B))]
    gdt = b"".join(struct.pack("<Q", segment) for segment in segments)
    if mode == "real":
        return [Piece(IVT, struct.pack("<HH", HANDLER, 0) * 256, 1024)]
    gate = struct.pack("<HHHH", HANDLER, 8, 0xEE00, 0) + (bytes(8) if width(mode) == 64 else b"")
    return [Piece(GDT, gdt, len(gdt)), Piece(IDT, gate * 256, 256 * len(gate))]


def state(mode: str) -> State:
    if mode == "real":
        code, data, tables_ = Segment(0, 0x09B, 0xFFFF, 0), Segment(0, 0x093, 0xFFFF, 0), (Table(0, 0), Table(IVT, 0x3FF))
    else:
        flags = 0xA9B if width(mode) == 64 else 0xC9B
        code, data = Segment(8, flags, 0xFFFFFFFF, 0), Segment(16, 0xC93, 0xFFFFFFFF, 0)
        tables_ = (Table(GDT, 0x2F), Table(IDT, 0xFFF))
    system = System(
        (data, code, data, data, data, data), ldtr=Segment(0, 0x82, 0xFFFF, 0), tr=Segment(0x28, 0x8B, 0xFFFF, 0),
        gdtr=tables_[0], idtr=tables_[1], cpl=0, dr6=0xFFFF0FF0, dr7=0x400, kernel_gs_base=0,
    )  # fmt: skip
    return State([0, 0, 0, 0, STACK, 0, 0, 0] + [0] * 8, CODE, 2, system)


def hostile(mode: str, seed: int, features: tuple[str, ...] = (), **options: object) -> Machine:
    """The machine with the guest of this seed, about to start; `options` are the machine's."""
    choose = random.Random(f"{mode} {seed}")
    pieces = [Piece(0, b"\x0f\x0b" * (MEMORY // 2), MEMORY)]  # UD2: code that runs astray comes back soon
    pieces += [Piece(at, noise := choose.randbytes(0x4000), len(noise)) for at in (VMCB, TABLES + 0x8000, MEMORY - 0x4000)]
    pieces += descriptors(mode)
    handler = bytes.fromhex(HANDLERS[width(mode)])
    pieces += [Piece(HANDLER, handler, len(handler)), Piece(COUNTER, bytes(8), 8)]
    pieces.append(Piece(CODE, b"".join(chunk(choose) for _ in range(CHUNKS + 1)), CHUNK * (CHUNKS + 1)))
    cr0, cr4, efer = REGISTERS[mode]
    if cr0 & Cr0.PG:
        pieces.append(Piece(TABLES, tables(mode, choose), 0x8000))
    guest = Guest(name=f"hostile {mode} {seed}", image="none", format="flat", memory_mib=MEMORY >> 20, features=features)
    machine = Machine(guest, loaded=Loaded(tuple(pieces), state(mode), cr0 & ~int(Cr0.PG)), **options)  # type: ignore[arg-type]
    machine.vm.vcpus[0].set_sregs(cr0, TABLES if cr0 & Cr0.PG else 0, cr4, efer | (int(Efer.SVME) if "svm" in features else 0))
    return machine
