# SPDX-License-Identifier: GPL-2.0-only
"""Random hypervisors: edits of nested tables, of an L2's own tables, and acts of the host, between runs of an L2."""

from __future__ import annotations

import random

from kit.bits import ALL, PS, A, D, P, U
from kit.by_seed import BySeed
from kit.guest import Mode
from kit.layout import (
    BIG,
    BIG_MEMORY,
    DATA,
    HIGH,
    HUGE,
    HUGE_MEMORY,
    L2_DATA,
    L2_TABLES,
    LOGGED,
    LOGGED_MEMORY,
    LOST,
    LOST_MEMORY,
    MMIO,
    MMIO_ADDRESS,
    PAGE,
    frame,
    page,
)
from kit.svm import L2_TABLE_PAGES, After, Hypervisor, Vmcb
from kit.tables import PageTables

RUNS = 18
"""VMRUNs in a programme: its steps."""
ROOTS = 3
FRAMES = 48
ABSENT, READ_ONLY = 14, 15
"""Data pages that L2 may not read, or not write; L1 never changes them. L2 may do all to the others."""
EDITED = 12
L2_MMIO, L2_LOST = L2_DATA + (1 << 20), L2_DATA + (2 << 20)
"""Where a paged L2 has them."""


class RandomNested(Hypervisor, BySeed):
    """L1 edits the nested tables of a flat or a paged L2, and is given L2's faults."""

    length = RUNS

    def __init__(self, name: str, mode: Mode, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(f"nested {mode.tag} {seed}")
        self.l2_paged = seed % 2 == 1
        super().__init__(name, mode, f"random nested operations, seed {seed}", l2_paging=self.l2_paged)
        self.all_roots = [self.nested, *(self.new_nested_root() for _ in range(ROOTS - 1))]
        for root in self.all_roots:
            self._map_all(root)
        self.leaf_tables = [root.table(DATA) for root in self.all_roots]
        self.own = self.l2_tables() if self.l2_paged else None
        if self.own:
            self.own.map(L2_MMIO, MMIO)
            self.own.map_range(L2_LOST, LOST, 4)
        self.logging = 0

    def _map_all(self, root: PageTables) -> None:
        root.map_range(LOST, LOST_MEMORY, 4)
        root.map_range(LOGGED, LOGGED_MEMORY, 4)
        root.map(BIG, BIG_MEMORY, level=2)
        root.map(HUGE, HUGE_MEMORY, level=2)
        root.map(HIGH, frame(40))
        root.map(MMIO, MMIO_ADDRESS)
        if self.l2_paged:
            root.map_range(L2_TABLES, L2_TABLES, L2_TABLE_PAGES)
        root.set(page(ABSENT), 1, 0)
        root.map(page(READ_ONLY), frame(READ_ONLY), P | U)

    def step(self) -> None:
        for _ in range(self.random.randrange(4)):
            self._l1_step()
        for _ in range(self.random.randrange(1, 6)):
            self._l2_step()
        first = L2_DATA if self.l2_paged else DATA
        end = self.random.random()
        if end < 0.2:
            self.l2.read(first + ABSENT * PAGE, "not present in the nested tables")
            self.vmrun(After.NPF)
        elif end < 0.4:
            self.l2.write(first + READ_ONLY * PAGE, 1, "read-only in the nested tables")
            self.vmrun(After.NPF)
        else:
            self.run_l2()

    def _l1_step(self) -> None:
        kind, root = self.random.random(), self.random.choice(self.all_roots)
        data = page(self.random.randrange(EDITED))
        if kind < 0.4:
            bits = self.random.choice((ALL, ALL, ALL | A | D))
            self.edit(root, data, 1, frame(self.random.randrange(FRAMES)) | bits)
        elif kind < 0.5:
            self.set_nested_root(root)
        elif kind < 0.62:
            self.flush(self.random.random() < 0.5)
        elif kind < 0.68:
            self.edit(root, BIG, 2, BIG_MEMORY | ALL | PS | self.random.choice((0, A | D)))
        elif kind < 0.76:
            self.edit(root, DATA, 2, self.random.choice(self.leaf_tables) | ALL)
        elif kind < 0.8:
            self.read(data)
        elif kind < 0.84:
            self.write(data, self.random.getrandbits(31))
        else:
            self._host_step()

    def _host_step(self) -> None:
        kind = self.random.random()
        if kind < 0.3:
            self.host(f"madvise {LOST_MEMORY:x} {PAGE:x}")
        elif kind < 0.6:
            self.logging ^= 1
            self.host(f"flags 3 {self.logging}")
        elif kind < 0.8 and self.logging:
            self.host("dirtylog 3")
        else:
            self.host("delslot 3", "readd 3 0")
            self.logging = 0

    def _l2_step(self) -> None:
        kind = self.random.random()
        if kind < 0.45:
            self.l2.read(self._l2_address())
        elif kind < 0.85:
            self.l2.write(self._l2_address(), self.random.getrandbits(31))
        elif kind < 0.92:
            self.l2.read(L2_MMIO if self.l2_paged else MMIO, "MMIO")
        elif self.own and kind < 0.96:
            va = L2_DATA + self.random.randrange(EDITED) * PAGE
            self.l2.write(self.own.entry(va), page(self.random.randrange(EDITED)) | ALL, "L2 edits its table")
            self.l2.invlpg(va)
        elif self.own:
            self.l2.cr3(L2_TABLES)

    def _l2_address(self) -> int:
        """Any that L2 may read and write."""
        first = L2_DATA if self.l2_paged else DATA
        pages = [first + number * PAGE for number in range(EDITED)]
        flat = [BIG, BIG + 5 * PAGE, HUGE, HUGE + 3 * PAGE, LOST, LOGGED, LOGGED + PAGE, HIGH]
        return self.random.choice([*pages, *([L2_LOST, L2_LOST + PAGE] if self.l2_paged else flat)])


class RandomWithoutNpt(Hypervisor, BySeed):
    """An L1 with shadow paging below it, and an L2 on tables of its own: all are shadowed."""

    length = RUNS

    def __init__(self, name: str, mode: Mode, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(f"no npt {mode.tag} {seed}")
        super().__init__(name, mode, f"random operations of an L2 without NPT, seed {seed}", nested_paging=False, l2_paging=True)
        self.own = self.l2_tables()

    def step(self) -> None:
        for _ in range(self.random.randrange(4)):
            self._l1_step()
        for _ in range(self.random.randrange(1, 6)):
            self._l2_step()
        self.run_l2()

    def _l1_step(self) -> None:
        kind, va = self.random.random(), page(self.random.randrange(8))
        if kind < 0.4:
            self.read(va)
        elif kind < 0.7:
            self.write(va, self.random.getrandbits(31))
        elif kind < 0.85:
            self.edit(self.tables, va, 1, frame(self.random.randrange(FRAMES)) | ALL)
        else:
            self.set_vmcb(Vmcb.TLB_CONTROL, self.random.randrange(2))

    def _l2_step(self) -> None:
        kind, va = self.random.random(), L2_DATA + self.random.randrange(16) * PAGE
        if kind < 0.5:
            self.l2.read(va)
        elif kind < 0.8:
            self.l2.write(va, self.random.getrandbits(31))
        elif kind < 0.93:
            self.l2.write(self.own.entry(va), frame(self.random.randrange(FRAMES)) | ALL, "L2 edits its table")
            if self.random.random() < 0.7:
                self.l2.invlpg(va)
        else:
            self.l2.cr3(L2_TABLES)
