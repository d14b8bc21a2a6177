# SPDX-License-Identifier: GPL-2.0-only
"""The C twin (`twin.c`, `twin_vm.c`), compiled with -O2 and loaded, and a guest for both it and the engine."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from shadowmmu import Vm

PAGE = 4096
MEMORY_MIB = 64
PAGES = MEMORY_MIB * 256
TABLE_PAGES = 1024
LIMIT = 600
KERNEL = "6.1"  # whose path the twin is
ROOT = 0x1000
FIRST_TABLE = 0x10000
DATA = 0x1000000
FRESH, USED = 0x7, 0x67  # P, W, U of a leaf; and A and D, so that neighbours are prefetched
COUNTERS = ("pf_taken", "pf_fixed", "pf_spurious", "pf_guest", "pages_4k", "mmu_cache_miss", "max_mmu_rmap_size",
            "max_mmu_page_hash_collisions", "remote_tlb_flush_requests", "n_used_mmu_pages", "indirect_shadow_pages")  # fmt: skip
ADDRESS = 0x000FFFFFFFFFF000
LIBC, MADV_POPULATE_WRITE = ctypes.CDLL(None), 23


class Mode(NamedTuple):
    """A guest: levels of its tables, and the registers that select them."""

    name: str
    levels: int
    cr4: int
    efer: int


MODES = (Mode("PAE guest, special root", 3, 0x20, 0x800), Mode("4-level guest", 4, 0x20, 0xD00))


def build(folder: Path = Path(__file__).parent) -> ctypes.CDLL:
    """Compile the twin and load it, leaving no file; without a C compiler the error names the remedy."""
    with tempfile.TemporaryDirectory(prefix="shadowmmu-twin-") as place:
        target = Path(place) / "twin.so"
        try:
            subprocess.run(
                ["cc", "-O2", "-shared", "-fPIC", "-o", str(target), *(str(folder / name) for name in ("twin.c", "twin_vm.c", "chase.c"))],
                check=True,
            )
        except FileNotFoundError:
            sys.exit("no C compiler for the twin: apt install gcc")
        library = ctypes.CDLL(str(target))
    pointer, word = ctypes.c_void_p, ctypes.c_uint64
    for name, result, arguments in (
        ("create", pointer, (word, word, word, word, ctypes.c_int)),
        ("memory", pointer, (pointer,)),
        ("load", None, (pointer, word)),
        ("touch", word, (pointer, word, word, word, word)),
        ("table", pointer, (pointer, word)),
        ("root", word, (pointer,)),
        ("counters", None, (pointer, ctypes.POINTER(word * len(COUNTERS)))),
        ("destroy", None, (pointer,)),
    ):
        function = getattr(library, f"twin_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def guest_tables(levels: int, pages: int, bits: int) -> list[tuple[int, bytes]]:
    """Tables that map `pages` pages from address 0 to guest memory by leaves with `bits`, each page of DATA several times if need be."""
    frames = PAGES - DATA // PAGE
    leaves = b"".join(struct.pack("<Q", DATA + page % frames * PAGE | bits) for page in range(pages))
    tables = (pages + 511) // 512
    pieces = [(FIRST_TABLE + 0x100000, leaves)]
    directories = b"".join(struct.pack("<Q", FIRST_TABLE + 0x100000 + table * PAGE | 7) for table in range(tables))
    pieces.append((FIRST_TABLE, directories))
    count = (tables + 511) // 512
    top = b"".join(struct.pack("<Q", FIRST_TABLE + i * PAGE | (1 if levels == 3 else 7)) for i in range(count))
    if levels == 4:
        pieces.append((ROOT + PAGE, top))
        top = struct.pack("<Q", ROOT + PAGE | 7)
    pieces.append((ROOT, top))
    return pieces


def mappings() -> set[tuple[int, int]]:
    """Start and end of this process's anonymous memory."""
    rows = (line.split() for line in Path("/proc/self/maps").read_text().splitlines())
    return {(int(row[0].split("-")[0], 16), int(row[0].split("-")[1], 16)) for row in rows if len(row) == 5 and row[1].startswith("rw")}


@contextmanager
def in_place() -> Iterator[None]:
    """What is mapped meanwhile gets its pages at once (MADV_POPULATE_WRITE, Linux 5.14), not when it is first written."""
    before = mappings()
    yield
    for start, end in mappings() - before:
        LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_POPULATE_WRITE)


class Engine:
    """The engine with the guest loaded."""

    def __init__(self, mode: Mode, pages: int, bits: int = FRESH) -> None:
        self.vm = Vm(memory_mib=MEMORY_MIB, shadow_pages=LIMIT, table_pages=TABLE_PAGES, kernel=KERNEL)
        self.vcpu = self.vm.vcpus[0]
        for gpa, data in guest_tables(mode.levels, pages, bits):
            self.vm.write_guest(gpa, data)
        if not self.vcpu.set_sregs(0x80010001, ROOT, mode.cr4, mode.efer):
            raise RuntimeError(f"{mode.name}: the registers were refused")
        self.root = self.vcpu.enter().root
        self.read_table = lambda hpa: self.vm.read_host(hpa, PAGE)

    def touch(self, gva: int, count: int, code: int, step: int = PAGE) -> int:
        fixed: int = self.vcpu.touch_range(gva, count, step, code)
        return fixed

    def counters(self) -> dict[str, int]:
        counters = self.vm.counters()
        return {name: counters[name] for name in COUNTERS}

    def close(self) -> None:
        """Nothing: the VM goes with its last reference."""


class Twin:
    """The C twin with the same guest."""

    def __init__(self, library: ctypes.CDLL, mode: Mode, pages: int, bits: int = FRESH) -> None:
        self.loaded = library
        self.vm = library.twin_create(PAGES, TABLE_PAGES, PAGES + 32 * TABLE_PAGES, LIMIT, mode.levels)
        memory = library.twin_memory(self.vm)
        for gpa, data in guest_tables(mode.levels, pages, bits):
            ctypes.memmove(memory + gpa, data, len(data))
        library.twin_load(self.vm, ROOT)
        self.root = library.twin_root(self.vm)
        self.read_table = lambda hpa: ctypes.string_at(library.twin_table(self.vm, hpa), PAGE)

    def touch(self, gva: int, count: int, code: int, step: int = PAGE) -> int:
        fixed: int = self.loaded.twin_touch(self.vm, gva, count, step, code)
        return fixed

    def counters(self) -> dict[str, int]:
        out = (ctypes.c_uint64 * len(COUNTERS))()
        self.loaded.twin_counters(self.vm, ctypes.byref(out))
        return dict(zip(COUNTERS, out, strict=True))

    def close(self) -> None:
        self.loaded.twin_destroy(self.vm)


def all_tables(side: Engine | Twin, levels: int) -> dict[int, bytes]:
    """Every shadow table from the root down, by its host physical address."""
    found: dict[int, bytes] = {}
    level_tables = [side.root]
    for level in range(levels, 0, -1):
        below = []
        for hpa in level_tables:
            found[hpa] = side.read_table(hpa)
            if level > 1:
                below += [entry & ADDRESS for (entry,) in struct.iter_unpack("<Q", found[hpa]) if entry]
        level_tables = below
    return found


def differences(engine: Engine, twin: Twin, levels: int) -> list[str]:
    """What the two disagree on; nothing if they did the same work."""
    ours, theirs = all_tables(engine, levels), all_tables(twin, levels)
    found = [f"table {hpa:#x} differs" for hpa in sorted(ours.keys() | theirs.keys()) if ours.get(hpa) != theirs.get(hpa)]
    theirs_counted = twin.counters()
    return found + [
        f"{name}: engine {value}, twin {theirs_counted[name]}" for name, value in engine.counters().items() if value != theirs_counted[name]
    ]
