# SPDX-License-Identifier: GPL-2.0-only
"""Random guests: accesses, edits of tables at every level, control registers, and acts of the host, decided by a seed.

Nothing is known beforehand but that the guest's code and stacks stay mapped: every access may fault, and goes on.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from kit.bits import (
    ALL,
    CR0_PG,
    CR0_WP,
    CR4_PGE,
    CR4_SMEP,
    EFER_LMA,
    EFER_NXE,
    NX,
    PS,
    RESERVED,
    A,
    D,
    G,
    P,
    U,
    W,
)
from kit.by_seed import BySeed
from kit.guest import P32, PAE32, Mode, Paged
from kit.layout import (
    BIG,
    BIG_MEMORY,
    DATA,
    HIGH,
    HUGE,
    HUGE_MEMORY,
    LOGGED,
    LOGGED_MEMORY,
    LOST,
    LOST_MEMORY,
    MMIO,
    MMIO_ADDRESS,
    PAGE,
    TABLES,
    frame,
)
from kit.tables import PageTables

ROOTS = 3
FRAMES = 48
"""Data pages that entries are pointed at."""


Step = tuple[int, Callable[[], None]]
"""A weight, and what is done."""


class RandomGuest(Paged, BySeed):
    """A guest of any paging mode."""

    length = 160

    def __init__(self, name: str, mode: Mode, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(f"{mode.tag} {seed}")
        super().__init__(name, mode, f"random operations, seed {seed}", wp=self.random.random() < 0.7)
        self.kernel_only = self.random.random() < 0.5
        """Code pages are the supervisor's: SMEP can be on, and there is no user."""
        if self.kernel_only:
            self.tables.map_range(0, 0, TABLES // PAGE, P | W)
        self.roots = [self.tables, *(self.new_root(low=self.tables) for _ in range(ROOTS - 1))]
        self.tabled = (DATA, DATA + self.form.large, HIGH)
        """Addresses of three level-1 tables in each root."""
        for root in self.roots:
            self._map_all(root)
        self.spare = self.allocate()
        self.tables.fill(self.spare, frame(32), 16)
        self.now = {"cr0": self.first_cr0, "cr4": self.first_cr4, "efer": self.first_efer}
        self.present = True
        """Slot 2 is there."""
        self.logged = {1: 0, 3: 0}

    def _map_all(self, root: PageTables) -> None:
        for number, va in enumerate(self.tabled[1:]):
            root.map_range(va, frame(16 + 8 * number), 8)
        root.map(BIG, BIG_MEMORY, level=2)
        root.map(HUGE, HUGE_MEMORY, level=2)
        for va, gpa in ((LOST, LOST_MEMORY), (LOGGED, LOGGED_MEMORY), (MMIO, MMIO_ADDRESS)):
            root.map_range(va, gpa, 4)

    def steps(self) -> tuple[Step, ...]:
        """What it may do."""
        return (
            (24, self._read), (20, self._write), (15, self._edit_leaf), (7, self._edit_upper), (4, self._edit_large),
            (3, self._flood), (2, self._misaligned), (6, self._switch_root), (3, lambda: self._toggle("cr0", CR0_WP)),
            (2, lambda: self._toggle("cr4", CR4_PGE)), (2, self._toggle_rights), (1, self._paging_off), (2, self._invlpg),
            (4, self._as_user), (3, self._logging), (2, self._take_pages), (2, self._change_slot),
        )  # fmt: skip

    def step(self) -> None:
        steps = self.steps()
        self.random.choices([step for _, step in steps], [weight for weight, _ in steps])[0]()

    def _address(self) -> int:
        """Of a data page in any of the tables, a large page, or one of the host's slots."""
        pages = [va + number * PAGE for va in self.tabled for number in range(7)]
        return self.random.choice(
            [*pages, BIG, BIG + 5 * PAGE, BIG + 513 * PAGE, HUGE, HUGE + 3 * PAGE, LOGGED, LOGGED + PAGE, LOST, LOST + PAGE, MMIO]
        )

    def _value(self) -> int:
        return self.random.getrandbits(31)

    # --- accesses

    def _read(self) -> None:
        self.read(self._address())

    def _write(self) -> None:
        self.write(self._address() + 4, self._value())

    def _as_user(self) -> None:
        if self.kernel_only:
            return
        with self.user():
            for _ in range(self.random.randrange(1, 4)):
                self.random.choice((self._read, self._write))()

    # --- tables

    def _leaf_bits(self) -> int:
        ordinary = [ALL, ALL, ALL, ALL | A, ALL | A | D, ALL | G, P | U, P | W, P, 0]
        return self.random.choice(ordinary if self.mode is P32 else [*ordinary, ALL | NX, ALL | RESERVED])

    def _edit_leaf(self) -> None:
        va = self.random.choice(self.tabled) + self.random.randrange(8) * PAGE
        bits = self._leaf_bits()
        self.edit(self.random.choice(self.roots), va, 1, frame(self.random.randrange(FRAMES)) | bits if bits else 0)
        if self.random.random() < 0.6:
            self.invlpg(va)

    def _edit_upper(self) -> None:
        """Point an upper entry at a table of any root, with any rights, or at none."""
        root, level = self.random.choice(self.roots), 2
        va = self.random.choice(self.tabled)
        tables = [other.table(at, 1) for other in self.roots for at in self.tabled] + [self.spare]
        if self.form.levels > 3 and self.random.random() < 0.3:
            va, level = HIGH, 3
            tables = [other.table(HIGH, 2) for other in self.roots]
        bits = self.random.choice((ALL, ALL, ALL | A, P | U, P | W, 0))
        self.edit(root, va, level, self.random.choice(tables) | bits if bits else 0)
        if self.random.random() < 0.7:
            self.invlpg(va)

    def _edit_large(self) -> None:
        va, gpa = self.random.choice(((BIG, BIG_MEMORY), (HUGE, HUGE_MEMORY)))
        large = [gpa | PS | bits for bits in (ALL, P | U, P | W, ALL | A | D)]
        self.edit_flush(self.random.choice(self.roots), va, 2, self.random.choice([*large, self.spare | ALL]))

    def _flood(self) -> None:
        """Writes in a row to entries of a level-2 table that map nothing."""
        table = self.random.choice(self.roots).table(HIGH, 2)
        first = 40 + self.random.randrange(8)
        for number in range(self.random.randrange(1, 5)):
            self.write(table + (first + number) * self.form.entry_size, 0, "flood")

    def _misaligned(self) -> None:
        self.write(self.spare + 20 * self.form.entry_size + 2, 0x100_0000, "not aligned, in a table")

    def _invlpg(self) -> None:
        self.invlpg(self._address())

    # --- registers

    def _switch_root(self) -> None:
        self.cr3(self.random.choice(self.roots).root)

    def _toggle(self, register: str, bit: int) -> None:
        self.now[register] ^= bit
        value = self.now[register]
        if register == "efer":
            self.efer(value & ~EFER_LMA)
        else:
            self.control(int(register[2:]), value)

    def _toggle_rights(self) -> None:
        """SMEP, or EFER.NXE where entries have an NX bit."""
        if self.kernel_only and self.random.random() < 0.5:
            self._toggle("cr4", CR4_SMEP)
        elif self.mode is not P32:
            self._toggle("efer", EFER_NXE)

    def _paging_off(self) -> None:
        if self.mode not in (P32, PAE32):
            return
        self.cr0(self.now["cr0"] & ~CR0_PG, "paging off")
        self.read(frame(self.random.randrange(8)))
        self.write(frame(3) + 64, self._value())
        self.cr0(self.now["cr0"], "paging on")

    # --- the host

    def _logging(self) -> None:
        slot = self.random.choice((1, 3))
        if self.logged[slot] and self.random.random() < 0.6:
            self.host(f"dirtylog {slot}")
            return
        self.logged[slot] ^= 1
        self.host(f"flags {slot} {self.logged[slot]}")

    def _take_pages(self) -> None:
        if not self.present:
            return
        at = f"{LOST_MEMORY + self.random.randrange(2) * PAGE:x} {PAGE:x}"
        if self.random.random() < 0.5:
            self.host(f"madvise {at}")
        else:
            self.host(f"mprotect {at} 0", f"mprotect {at} 1")

    def _change_slot(self) -> None:
        """Slot 2 goes or comes; or is read-only, or elsewhere, for one read."""
        kind = self.random.random()
        if not self.present:
            self.host("readd 2 0")
        elif kind < 0.5:
            self.host("delslot 2")
        elif kind < 0.75:
            self.host("delslot 2", "readd 2 2", note="read-only")
            self.read(LOST)
            self.host("delslot 2", "readd 2 0")
        else:
            self.host(f"move 2 {LOST_MEMORY + 32 * PAGE:x}")
            self.read(LOST)
            self.host(f"move 2 {LOST_MEMORY:x}")
        if not self.present or kind < 0.5:
            self.present = not self.present
