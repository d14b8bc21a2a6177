# SPDX-License-Identifier: GPL-2.0-only
"""A hypervisor at war with the machine: its VMCB, its nested tables and L2's code are scribbled over after every exit.

Whatever comes of it, a run ends with a verdict, every exit is audited, and no WARN of the engine is hit.
"""

from __future__ import annotations

import random
import struct

import pytest
from designs import every_design
from nested_bench import HLT, IOPM, L1_CODE, L1_ROOT, L2_CODE, L2_DATA, L2_ROOT, L2_TABLES, MEMORY, MSRPM, NESTED_ROOT, VMCB, VMMCALL, Bench

from shadowmmu.x86.vmcb import Vmcb

FIELDS = sorted(set(Vmcb))
VALUES = (0, 1, 0x80010033, 0x1D00, 0x1000, 0x20, 0x30, VMCB, NESTED_ROOT, L1_ROOT, L2_ROOT, MEMORY, (1 << 64) - 1)
TABLES = (NESTED_ROOT, NESTED_ROOT + 0x1000, NESTED_ROOT + 0x2000, NESTED_ROOT + 0x3000, L2_ROOT, L2_ROOT + 0x3000, L2_TABLES)
FLAGS = (1, 3, 5, 7, 0x87, 0x67, 0xE7)
SANE = 0.1  # how often the VMCB and the nested tables are made good again
EXITS = 150


class Scribbler:
    """What happens to a bench after each exit."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.random = bench, random.Random(seed)
        self.good = {page: bench.vm.read_guest(page, 4096) for page in (VMCB, *TABLES)}

    def __call__(self, machine: object, exit_: object) -> None:
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 3))):
            self.random.choice((self.field, self.field, self.entry, self.code))()
        if self.random.random() < SANE:
            for page, content in self.good.items():
                self.bench.processor.memory.store_physical(page, content)

    def field(self) -> None:
        size = self.random.choice((1, 2, 4, 8))
        value = self.random.choice((*VALUES, self.random.getrandbits(64), 1 << self.random.randrange(64)))
        self.bench.set(self.random.choice(FIELDS), value & (1 << 8 * size) - 1, size)

    def entry(self) -> None:
        table, index = self.random.choice(TABLES), self.random.choice((0, 1, 2, self.random.randrange(512)))
        page = self.random.choice((self.random.randrange(MEMORY >> 12) << 12, *TABLES, VMCB, L1_CODE, MSRPM, IOPM))
        value = self.random.choice((0, page | self.random.choice(FLAGS), self.random.getrandbits(64)))
        self.bench.processor.memory.store_physical(table + 8 * index, struct.pack("<Q", value))

    def code(self) -> None:
        self.bench.put(L2_CODE + self.random.randrange(64), self.random.randbytes(self.random.choice((1, 2, 4, 8))).hex())


@every_design
@pytest.mark.parametrize(("form", "npt"), [("4-level", True), ("pae", True), ("2-level", True), ("4-level", False), ("pae", False)])
@pytest.mark.parametrize("seed", range(6))
def test_no_hypervisor_breaks_the_machine(form: str, npt: bool, seed: int, roots: str) -> None:
    bench = Bench(form, npt=npt, roots=roots)
    bench.put(0x100000, HLT * (MEMORY - 0x100000))
    bench.set(Vmcb.INTERCEPTS_1, 0x81000000, 4)
    bench.put(L2_CODE, "ff05" + "00000000" + VMMCALL * 100)
    bench.put(L2_DATA, HLT * 0x1000)
    bench.put(L1_CODE, "0f01d8" + "ebfb")  # vmrun; and again
    bench.machine.on_exit = Scribbler(bench, seed)
    result = bench.run(max_exits=EXITS)
    assert result.reason in ("exit limit", "triple fault", "halted", "spinning", "unemulated instruction")
