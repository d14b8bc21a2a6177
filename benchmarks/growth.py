# SPDX-License-Identifier: GPL-2.0-only
"""What a fault and a page cost as the shadow grows: a 4-level guest with a level-1 table for each 2 MiB, as many as asked for."""

from __future__ import annotations

import ctypes
import mmap
import struct
import time
from pathlib import Path

from rows import Row, Rows, best, timed

from shadowmmu import Vm

PAGE = 4096
SIZES = (1_000, 100_000, 1_000_000)
SAMPLE = 500
MOST = 1 << 20  # shadow pages that a VM may be allowed
WRITE = 2
LARGE = 2 << 20
BYTES_A_PAGE = 13 << 10  # of the guest's table, the shadow table, header and rest, with some to spare
DATA = 0x1000
TABLES = 0x10000
TABLE, LEAF = 0x67, 0x7  # P, W, U; and A, D. Leaves without A: no neighbour is mapped with them


def available() -> int:
    """Bytes that the host can give (MemAvailable)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def guest(pages: int) -> Vm:
    """A VM with `pages` level-1 tables, all full, and the tables above."""
    directories = (pages + 511) // 512
    pointers = (directories + 511) // 512
    at_pointers, at_directories = TABLES + PAGE, TABLES + PAGE * (1 + pointers)
    at_tables = at_directories + PAGE * directories
    vm = Vm(memory_mib=(at_tables + pages * PAGE >> 20) + 2, shadow_pages=min(2 * pages + 100, MOST), table_pages=pages + directories + 100)
    for at, below, count in (
        (TABLES, at_pointers, pointers),
        (at_pointers, at_directories, directories),
        (at_directories, at_tables, pages),
    ):
        vm.write_guest(at, b"".join(struct.pack("<Q", below + i * PAGE | TABLE) for i in range(count)))
    leaves = struct.pack("<Q", DATA | LEAF) * 512
    for table in range(pages):
        vm.write_guest(at_tables + table * PAGE, leaves)
    vcpu = vm.vcpus[0]
    vcpu.set_sregs(0x80010001, TABLES, 0x20, 0xD00)
    vcpu.enter()
    return vm


def chase(library: ctypes.CDLL, size: int) -> float:
    """Nanoseconds of a load that waits for the one before it, anywhere in `size` bytes."""
    memory = mmap.mmap(-1, size)
    words = (ctypes.c_uint64 * (size // 8)).from_buffer(memory)
    library.chase_make(words, ctypes.c_uint64(size // 64))
    steps = 200_000
    return best(lambda: library.chase_run(words, ctypes.c_uint64(steps)), steps)


def sized(library: ctypes.CDLL, pages: int) -> Rows:
    """Rows of one size: making the pages, a first write below some of them, the same again, what each takes, freeing all."""
    before = resident()
    vm = guest(pages)
    vcpu = vm.vcpus[0]
    made = timed(lambda: vcpu.touch_range(0, pages, LARGE, WRITE)) / pages * 1e9
    taken = (resident() - before) / pages - PAGE
    step = pages // SAMPLE * LARGE + PAGE  # another entry in each table: their lines spread over the cache
    first = timed(lambda: vcpu.touch_range(PAGE, SAMPLE, step, WRITE)) / SAMPLE * 1e9
    warm = best(lambda: vcpu.touch_range(PAGE, SAMPLE, step, WRITE), SAMPLE)
    load = chase(library, pages * 2 * PAGE)
    yield Row("growth", f"{pages:,} pages: a page made, its first fault", made, "ns")
    yield Row("growth", f"{pages:,} pages: first write to a page", first, "ns", "one dependent load in as much memory", load)
    yield Row("growth", f"{pages:,} pages: warm translation", warm, "ns", "one dependent load in as much memory", load)
    yield Row("growth", f"{pages:,} pages: a shadow page, all in, without the guest's table", taken / 1024, "KiB")
    yield Row("growth", f"{pages:,} pages: zap_all_fast, a page", timed(vm.zap_all_fast) / pages * 1e9, "ns")


def creation() -> Rows:
    """A VM made and dropped: nothing is written before it is used."""
    for mebibytes in (32, 16 << 10):
        start = time.process_time()
        Vm(memory_mib=mebibytes)
        yield Row("growth", f"a VM of {mebibytes:,} MiB made", (time.process_time() - start) * 1e3, "ms")


def rows(library: ctypes.CDLL) -> Rows:
    yield from creation()
    for pages in SIZES:
        if pages * BYTES_A_PAGE < available():
            yield from sized(library, pages)
        else:
            yield Row("growth", f"{pages:,} pages: not measured, the host has no {pages * BYTES_A_PAGE >> 30} GiB free", 0, "")
