# SPDX-License-Identifier: GPL-2.0-only
"""Random guests of more kinds: beside all that `random_guest` does, pages that are tables of every level and data at once, tables
that are written through other addresses, that lie in a slot which goes or is written by the VMM, memory that two slots share, marks
of MMIO where memory comes, manual dirty logs, limits of shadow pages; on CPUs that lack something, and on huge pages of the host.
"""

from __future__ import annotations

from kit.bits import ALL, NX, PS, A, D, P, U, W
from kit.guest import P32, Mode, Slot
from kit.layout import BIG_MEMORY, DATA_MEMORY, HIGH, LOST, LOST_MEMORY, PAGE, frame
from kit.random_guest import RandomGuest, Step

SHARED, SHARED_MEMORY = 0x203_0000, 0x600_0000
"""Slot 4: the memory of the first data pages once more."""
GIANT = 2 * HIGH
"""Where 1 GiB pages are mapped, by guests that have them."""
POOL = 6
"""Pages that are tables of any level."""
USED = 16
"""Entries of these that some address uses."""
CPUS = (
    (), (), ("nofeature 80000001 edx 26",), ("vendor GenuineIntel",), ("physbits 36",),
    ("vendor GenuineIntel", "nofeature 80000001 edx 26"),
)  # fmt: skip
"""Of which each guest has one: no 1 GiB pages, another vendor, fewer address bits."""
BACKINGS = ((), (), ("0=thp",), ("1=thp",), ("0=thp", "1=thp"))


class WildGuest(RandomGuest):
    """A guest of any paging mode."""

    def __init__(self, name: str, mode: Mode, seed: int) -> None:
        super().__init__(name, mode, seed)
        self.about = f"wild operations, seed {seed}"
        self.slots.append(Slot(4, SHARED_MEMORY, 16 * PAGE, f"slot:0+{DATA_MEMORY:x}"))
        self.make_otherwise(self.random.choice(CPUS), self.random.choice(BACKINGS))
        self.pool = [self.allocate() for _ in range(POOL)]
        for table in self.pool:
            for index in range(USED):
                self.memory.write_word(table + index * self.form.entry_size, self._pool_entry(), self.form.entry_size)
        for root in self.roots:
            root.map_range(SHARED, SHARED_MEMORY, 8)
        if self.random.random() < 0.3:
            self.host(f"manual {self.random.choice((1, 1, 3))}")

    def steps(self) -> tuple[Step, ...]:
        return (
            *super().steps(),
            (8, self._use_pool), (8, self._edit_pool), (5, self._write_table_elsewhere), (3, self._table_in_a_slot), (4, self._shared),
            (2, self._marks), (3, self._poke), (1, self._limit), (2, self._clear_log),
            *(((4, self._giant),) if self.form.levels > 3 else ()),
        )  # fmt: skip

    def _address(self) -> int:
        if self.random.random() < 0.1:
            return SHARED + self.random.randrange(4) * PAGE
        return super()._address()

    # --- one page, many uses

    def _pool_entry(self) -> int:
        """To another page of the pool, to data, or to a large page."""
        kind, bits = self.random.random(), self.random.choice((ALL, ALL, ALL, ALL | A, ALL | A | D, P | U, P | W))
        if kind < 0.5:
            return self.random.choice(self.pool) | bits
        if kind < 0.9:
            return frame(self.random.randrange(16)) | bits | (NX if self.mode is not P32 and self.random.random() < 0.1 else 0)
        return BIG_MEMORY | PS | bits

    def _use_pool(self) -> None:
        """A page of the pool becomes the table behind an address, at any level below the root."""
        va, level = self.random.choice(self.tabled), 2
        if self.form.levels > 3 and self.random.random() < 0.4:
            va, level = HIGH, 3
        self.edit(self.random.choice(self.roots), va, level, self.random.choice(self.pool) | self.random.choice((ALL, ALL, P | U, P | W)))
        if self.random.random() < 0.7:
            self.invlpg(va)
        for _ in range(self.random.randrange(3)):
            self.read(va + self.random.randrange(8) * PAGE)

    def _edit_pool(self) -> None:
        at = self.random.choice(self.pool) + self.random.randrange(USED) * self.form.entry_size
        self._store_entry(at, self._pool_entry() if self.random.random() < 0.85 else 0, "in a page of the pool")

    def _store_entry(self, at: int, value: int, note: str) -> None:
        if self.bits == 64:
            self.write(at, value, note, 8)
            return
        self.write(at, value & 0xFFFF_FFFF, note)
        if self.form.entry_size == 8 and value >> 32:
            self.write(at + 4, value >> 32, note)

    def _write_table_elsewhere(self) -> None:
        """A table is mapped as data, and an entry in it written by that address."""
        root, through = self.random.choice(self.roots), self.random.choice(self.tabled) + self.random.randrange(8) * PAGE
        other, va = self.random.choice(self.roots), self.random.choice(self.tabled) + self.random.randrange(8) * PAGE
        inside = self.random.random() < 0.5
        entry = self.random.choice(self.pool) + self.random.randrange(USED) * self.form.entry_size if inside else other.entry(va)
        self.edit_flush(root, through, 1, entry & -PAGE | ALL)
        value = self._pool_entry() if inside else frame(self.random.randrange(16)) | self.random.choice((ALL, P | U, P | W))
        self._store_entry(through | entry % PAGE, value & ~(NX | PS), "through another address")
        self.read(va)

    def _giant(self) -> None:
        """A 1 GiB page over all of the guest's memory, its tables too, or another, or none."""
        entry = self.random.choice((ALL | PS, ALL | PS, ALL | PS | A | D, P | U | PS, ALL | PS | NX, 0))
        self.edit_flush(self.random.choice(self.roots), GIANT, 3, entry)
        for _ in range(self.random.randrange(1, 4)):
            self.read(GIANT + self._in_memory(), "through the 1 GiB page")
        if self.random.random() < 0.5:
            self._store_entry(GIANT + self._in_memory(), self._pool_entry(), "through the 1 GiB page")

    def _in_memory(self) -> int:
        """Data, or an entry of a table."""
        if self.random.random() < 0.5:
            return frame(self.random.randrange(16)) + 16
        return self.random.choice(self.pool) + self.random.randrange(USED) * self.form.entry_size

    # --- what the VMM does with it

    def _table_in_a_slot(self) -> None:
        """A level-1 table in slot 2, which then goes, moves, is read-only or written by the VMM while it is used."""
        if not self.present:
            return
        table, root, va = LOST_MEMORY + PAGE, self.random.choice(self.roots), self.random.choice(self.tabled)
        for index in range(4):
            self._store_entry(LOST + PAGE + index * self.form.entry_size, frame(self.random.randrange(16)) | ALL, "in slot 2")
        self.edit_flush(root, va, 2, table | ALL)
        self.read(va + PAGE)
        there: tuple[str, ...] = ("readd 2 0",)
        match self.random.randrange(4):
            case 0:
                self.host("delslot 2")
            case 1:
                self.host(f"move 2 {LOST_MEMORY + 32 * PAGE:x}")
                there = (f"move 2 {LOST_MEMORY:x}",)
            case 2:
                self.host("delslot 2", "readd 2 2", note="read-only")
                there = ("delslot 2", "readd 2 0")
            case _:
                self.host(f"poke {table + self.form.entry_size:x} 4 {frame(3) | ALL:x}")
                there = ()
        self.read(va + PAGE)
        self.write(va + 2 * PAGE, self._value())
        if there:
            self.host(*there)
        self.read(va + PAGE)

    def _shared(self) -> None:
        """A page through both of its slots."""
        number = self.random.randrange(8)
        self.write(SHARED + number * PAGE, self._value(), "memory of two slots")
        self.read(self.tabled[0] + number * PAGE)

    def _marks(self) -> None:
        """Slot 2 goes, and comes where MMIO was."""
        if not self.present:
            return
        self.host("delslot 2")
        for number in range(self.random.randrange(1, 4)):
            self.random.choice((self._read_lost, self._write_lost))(number)
        self.host(f"readd 2 {self.random.choice((0, 0, 1))}")
        if self.random.random() < 0.5:
            self.edit(self.random.choice(self.roots), LOST + 8 * PAGE, 1, frame(1) | ALL)
            self._switch_root()
        self._write_lost(self.random.randrange(3))
        self._read_lost(self.random.randrange(3))

    def _read_lost(self, number: int) -> None:
        self.read(LOST + number * PAGE)

    def _write_lost(self, number: int) -> None:
        self.write(LOST + number * PAGE + 8, self._value())

    def _poke(self) -> None:
        """The VMM writes data, or an entry of a table, behind the guest's back."""
        at = frame(self.random.randrange(16)) + 16
        value = self._value()
        if self.random.random() < 0.4:
            at, value = self.random.choice(self.pool) + self.random.randrange(USED) * self.form.entry_size, frame(5) | ALL
        self.host(f"poke {at:x} 4 {value:x}")

    def _limit(self) -> None:
        self.host(f"nrpages {self.random.choice((64, 70, 100, 400))}")

    def _clear_log(self) -> None:
        self.host(f"clearlog {self.random.choice((1, 3))} 0 {self.random.choice((10, 40)):x}")
