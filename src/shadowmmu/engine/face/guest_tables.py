# SPDX-License-Identifier: GPL-2.0-only
"""Page tables of a guest, made by a few calls: for those who want to try something and have no guest that makes its own."""

from collections.abc import Callable
from typing import NamedTuple

from shadowmmu.engine.face.arguments import check_range
from shadowmmu.engine.face.vm import Vm
from shadowmmu.x86.control import Cr0, Cr4, Efer
from shadowmmu.x86.ept import Ept, Eptp
from shadowmmu.x86.pte import Pte

_PAGE = 4096
_WRITE_BACK = 6


class Registers(NamedTuple):
    """What turns a guest's paging on: the arguments of `Vcpu.set_sregs`."""

    cr0: int
    cr3: int
    cr4: int
    efer: int


class _Format(NamedTuple):
    levels: int
    large: int
    """The highest level whose entries may map memory."""
    link: int
    """Rights in an entry that leads to a table."""
    leaf: int
    """Rights, and EPT's memory type, in an entry that maps memory."""
    cr4: int = 0
    efer: int = 0


_PRESENT, _ALL = int(Pte.PRESENT), int(Pte.PRESENT | Pte.WRITABLE | Pte.USER)
_LONG = int(Efer.NXE | Efer.LME | Efer.LMA)
_EPT_LEAF = int(Ept.RWX) | _WRITE_BACK << 3
_FORMATS = {
    "2-level": _Format(2, 2, _ALL, _ALL, int(Cr4.PSE)),
    "pae": _Format(3, 2, _ALL, _ALL, int(Cr4.PAE), int(Efer.NXE)),
    "4-level": _Format(4, 3, _ALL, _ALL, int(Cr4.PAE), _LONG),
    "5-level": _Format(5, 3, _ALL, _ALL, int(Cr4.PAE | Cr4.LA57), _LONG),
    "ept": _Format(4, 3, int(Ept.RWX), _EPT_LEAF),
    "ept-5-level": _Format(5, 3, int(Ept.RWX), _EPT_LEAF),
}


class GuestTables:
    """Tables of one guest, or nested tables of one L1, in the guest memory of `vm`.

    `format` is "2-level", "pae", "4-level" or "5-level", for a guest's own tables and for NPT alike, or "ept" or
    "ept-5-level". The top table lies at `root`, guest physical; those below it are made in the pages behind, one
    after the other, when they are needed. `store` puts bytes into guest memory: by default behind the MMU's back, as before
    the guest runs; with `Vcpu.write_emulated` the MMU is told. Raises ValueError for what cannot be mapped.
    """

    def __init__(self, vm: Vm, format: str, root: int, *, store: Callable[[int, bytes], object] | None = None) -> None:
        if format not in _FORMATS:
            raise ValueError(f"format is {format!r}; choose one of {', '.join(map(repr, _FORMATS))}")
        check_range("root", root, 0, int(Pte.ADDR) | 0xFFF)
        if root % _PAGE:
            raise ValueError(f"root is {root:#x}; it must be the start of a page")
        self.vm, self.format, self.root = vm, format, root
        self.store = store or vm.write_guest
        self._format = _FORMATS[format]
        self._bits, self._size = (10, 4) if self._format.levels == 2 else (9, 8)
        self._free = root + _PAGE

    @property
    def registers(self) -> Registers:
        """Those of a guest that runs on these tables, with CR0.WP, CR4.PSE or PAE, and EFER.NXE where it exists."""
        if self.format.startswith("ept"):
            raise ValueError("EPT is walked for L2: give `eptp` to Vcpu.nested_vmentry")
        return Registers(int(Cr0.PE | Cr0.PG | Cr0.WP), self.root, self._format.cr4, self._format.efer)

    @property
    def eptp(self) -> int:
        """The EPT pointer of these tables: write-back, with A and D bits (SDM vol. 3 section 24.6.11)."""
        return self.root | (self._format.levels - 1) << Eptp.WALK_LENGTH_SHIFT | int(Eptp.AD_ENABLED) | _WRITE_BACK

    def map(self, address: int, gpa: int, flags: int | None = None, *, level: int = 1) -> int:
        """Map the page of `level` around `address` to `gpa`; returns where its entry lies, guest physical.

        `flags` are the entry's other bits (`x86.pte.Pte`, `x86.ept.Ept`): by default all rights, A and D clear.
        """
        if not 1 <= level <= self._format.large:
            raise ValueError(f"level is {level}; {self.format} tables map memory at levels 1 to {self._format.large}")
        size = 1 << self._shift(level)
        check_range("address", address, 0, (1 << 64) - 1)
        check_range("gpa", gpa, 0, int(Pte.ADDR) | 0xFFF if self._size == 8 else (1 << 32) - 1)
        if address % size or gpa % size:
            raise ValueError(f"address {address:#x} and gpa {gpa:#x} must be multiples of {size:#x}, the page of level {level}")
        at = self._entry_at(address, level, make=True)
        assert at is not None
        self._put(at, gpa | (self._format.leaf if flags is None else flags) | (int(Pte.PAGE_SIZE) if level > 1 else 0))
        return at

    def entry_at(self, address: int, level: int = 1) -> int | None:
        """Where the entry of `level` for `address` lies, guest physical; None: a table on the way is missing."""
        check_range("address", address, 0, (1 << 64) - 1)
        check_range("level", level, 1, self._format.levels)
        return self._entry_at(address, level, make=False)

    def _shift(self, level: int) -> int:
        return 12 + self._bits * (level - 1)

    def _entry_at(self, address: int, level: int, make: bool) -> int | None:
        table = self.root
        for above in range(self._format.levels, level, -1):
            at = self._slot(table, address, above)
            entry = int.from_bytes(self.vm.read_guest(at, self._size), "little")
            if not entry & self._format.link:
                if not make:
                    return None
                entry = self._new_table() | (_PRESENT if self.format == "pae" and above == 3 else self._format.link)
                self._put(at, entry)
            elif entry & Pte.PAGE_SIZE and above <= self._format.large:
                raise ValueError(f"{address:#x} lies in a large page of level {above}, which has no tables below it")
            table = entry & int(Pte.ADDR)
        return self._slot(table, address, level)

    def _slot(self, table: int, address: int, level: int) -> int:
        return table + (address >> self._shift(level)) % (1 << self._bits) * self._size

    def _new_table(self) -> int:
        table, self._free = self._free, self._free + _PAGE
        self.store(table, bytes(_PAGE))
        return table

    def _put(self, at: int, entry: int) -> None:
        self.store(at, entry.to_bytes(self._size, "little"))
