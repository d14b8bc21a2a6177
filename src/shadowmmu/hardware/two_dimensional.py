# SPDX-License-Identifier: GPL-2.0-only
"""Accesses of an L2 that has paging of its own, on the model CPU: a walk in two dimensions (APM 15.25.4).

Every entry of L2's tables is found by a nested walk for a user's write (APM 15.25.6), and so is, for the access itself,
the page that they lead to. Nothing of L2's own translations is kept: each access walks again, as a CPU may.
"""

from typing import NamedTuple

from shadowmmu.hardware.cpu import AccessResult, Done, ModelCpu
from shadowmmu.hardware.second_level import BeyondNestedTables
from shadowmmu.hardware.walk import FETCH, GUEST_FINAL, GUEST_TABLE, USER, WRITE, Paging, walk


class L2(NamedTuple):
    """An L2: its paging mode, its CR3 (an L2 physical address), the rights of its protection keys."""

    mode: Paging
    cr3: int
    pkru: int = 0


class _Stopped(Exception):
    """A nested walk ended with `outcome`, INJECT or EMULATE."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome


def access_l2(cpu: ModelCpu, l2: L2, npt_levels: int, gva: int, access: int, ac: bool, size: int, value: int | None = None) -> AccessResult:
    """Do one load, fetch or store of `size` bytes at L2's `gva`, aligned, to its end; `npt_levels`: of L1's nested tables."""
    exits: list[str] = []

    def find(gpa: int, how: int, where: int) -> int:
        if npt_levels < 4 and gpa >> 32:
            raise BeyondNestedTables(f"L2 physical address {gpa:#x}")
        hpa = cpu.find(gpa, how | USER, False, exits, where)
        if isinstance(hpa, str):
            raise _Stopped(hpa)
        return hpa

    def read(gpa: int, width: int) -> int:
        return cpu.memory.read(find(gpa, WRITE, GUEST_TABLE), width)

    def write(gpa: int, width: int, entry: int) -> None:
        hpa = find(gpa, WRITE, GUEST_TABLE)
        cpu.memory.write(hpa, width, entry)
        cpu.observer.stored(hpa, width)

    try:
        page = walk(l2.mode, read, l2.cr3, gva, access, ac, write=write, pkru=l2.pkru)
        if isinstance(page, int):
            return AccessResult(Done.L2_FAULT, page, tuple(exits))
        hpa = find(page.address(gva), access & (WRITE | FETCH), GUEST_FINAL)
    except _Stopped as stop:
        if stop.outcome == "INJECT":
            return AccessResult(Done.INJECTED, None, tuple(exits))
        return cpu.emulate(gva, access, ac, size, value, tuple(exits))
    return cpu.finish(hpa, size, value, exits)
