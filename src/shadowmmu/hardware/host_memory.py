# SPDX-License-Identifier: GPL-2.0-only
"""Host physical memory as the CPU sees it: compiled, as every entry of every walk is read through it."""

from collections.abc import Sequence

import cython
from cython.cimports.libc.stdint import uint16_t, uint32_t, uint64_t
from cython.cimports.shadowmmu.hardware.walk import Tables


class Violation(AssertionError):
    """The engine allowed, refused or changed what a bare CPU would not, or made no progress."""


@cython.final
@cython.cclass
class HostMemory(Tables):
    """Read and written in place. `regions`: (hpa, size, address in this process)."""

    def __init__(self, regions: Sequence[tuple[int, int, int]]) -> None:
        if len(regions) > REGIONS:
            raise ValueError(f"host memory has {len(regions)} regions, no more than {REGIONS} are looked at")
        for hpa, size, address in regions:
            region: RegionPtr = cython.address(self.regions[self.count])
            region.start, region.end, region.at = hpa, hpa + size, cython.cast(p_byte, cython.cast(uint64_t, address))
            self.count += 1

    def place(self, hpa, size):
        """Where the value of `size` bytes at `hpa` is."""
        i: cython.int
        for i in range(self.count):
            region: RegionPtr = cython.address(self.regions[i])
            if region.start <= hpa and hpa + size <= region.end:
                return region.at + (hpa - region.start)
        raise Violation(f"the CPU was led to host memory at {hpa:#x}, where there is none")

    def load(self, pa, size):
        """An entry of a shadow table."""
        return cython.cast(cython.pointer(uint64_t), self.place(pa, 8))[0]

    def store(self, pa, size, value):
        cython.cast(cython.pointer(uint64_t), self.place(pa, 8))[0] = value

    def read(self, hpa: uint64_t, size: cython.int) -> int:
        """The `size` (1, 2, 4, 8) bytes at `hpa`, which is aligned to its size."""
        at: p_byte = self.place(hpa, size)
        if size == 8:
            return cython.cast(cython.pointer(uint64_t), at)[0]
        if size == 4:
            return cython.cast(cython.pointer(uint32_t), at)[0]
        if size == 2:
            return cython.cast(cython.pointer(uint16_t), at)[0]
        return at[0]

    def write(self, hpa: uint64_t, size: cython.int, value: uint64_t) -> None:
        """Store `size` bytes at `hpa`, which is aligned to its size."""
        at: p_byte = self.place(hpa, size)
        if size == 8:
            cython.cast(cython.pointer(uint64_t), at)[0] = value
        elif size == 4:
            cython.cast(cython.pointer(uint32_t), at)[0] = value
        elif size == 2:
            cython.cast(cython.pointer(uint16_t), at)[0] = value
        else:
            at[0] = value
