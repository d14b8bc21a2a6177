# SPDX-License-Identifier: GPL-2.0-only
"""Second-level translation on a bare CPU: NPT and EPT, and a walk of a guest's tables through either."""

from typing import NamedTuple

from shadowmmu.hardware.walk import (
    ADDRESS,
    FETCH,
    GUEST_FINAL,
    GUEST_TABLE,
    LARGE,
    USER,
    WRITE,
    Paging,
    Read,
    Translation,
    Write,
    bits,
    walk,
)


class SecondLevelFault(Exception):
    """A guest-physical address that NPT or EPT does not map for the access.

    `code`: EXITINFO1 of a nested page fault (APM 15.25.6), or the exit qualification of an EPT violation
    (SDM table 28-7), -1 for an EPT misconfiguration.
    """

    def __init__(self, gpa: int, code: int) -> None:
        self.gpa, self.code = gpa, code


class BeyondNestedTables(Exception):
    """A guest-physical address of more than 32 bits, which nested tables of 2 or 3 levels have no index for."""


class Npt(NamedTuple):
    """Nested tables in the host's own paging format; every nested walk is a user access (APM 15.25.5)."""

    mode: Paging
    read: Read
    write: Write
    ncr3: int
    pdptes: tuple[int, ...] | None = None  # in PAE mode: None reads memory

    def translate(self, gpa: int, access: int, table: bool) -> int:
        """The host-physical address of `gpa`; `table`: for a guest table, which counts as written (APM 15.25.6)."""
        if self.mode.levels < 4 and gpa >> 32:
            raise BeyondNestedTables(f"L2 physical address {gpa:#x}")
        access = USER | (WRITE if table else access & (WRITE | FETCH))
        result = walk(self.mode, self.read, self.ncr3, gpa, access, write=self.write, pdptes=self.pdptes)
        if isinstance(result, int):
            raise SecondLevelFault(gpa, result | (GUEST_TABLE if table else GUEST_FINAL))
        return result.address(gpa)


class Ept(NamedTuple):
    """Extended page tables: SDM 28.3.2 (format), 28.3.3 (violations and misconfigurations), 28.3.5 (A/D)."""

    read: Read
    write: Write
    eptp: int
    maxphyaddr: int = 46
    exec_only: bool = True
    pages_1g: bool = True

    def translate(self, gpa: int, access: int, table: bool) -> int:
        """The host-physical address of `gpa`; with A/D flags on, access to a guest table is a write (SDM 28.3.5)."""
        ad = bool(self.eptp & 0x40)
        wanted = (3 if ad else 1) if table else 4 if access & FETCH else 2 if access & WRITE else 1
        found, allowed, used = self.reach(gpa)
        if wanted & ~allowed:
            raise SecondLevelFault(gpa, wanted | allowed << 3 | 0x80 | (0 if table else 0x100))
        if ad:
            for pa, entry in used:
                marked = entry | 0x100 | (0x200 if wanted & 2 and pa == used[-1][0] else 0)
                if marked != entry:
                    self.write(pa, 8, marked)
        return found

    def reach(self, gpa: int) -> tuple[int, int, list[tuple[int, int]]]:
        """Where `gpa` leads, what all entries on the way allow together, and these, each with its place. Nothing is allowed, and it
        leads nowhere, where one is not present."""
        at, level, allowed = self.eptp & ADDRESS, (self.eptp >> 3 & 7) + 1, 7
        used: list[tuple[int, int]] = []
        while True:
            shift = 12 + 9 * (level - 1)
            pa = at + (gpa >> shift & 511) * 8
            entry = self.read(pa, 8) or 0
            used.append((pa, entry))
            if not entry & 7:
                return 0, 0, used
            leaf = level == 1 or (entry & LARGE != 0 and level <= 2 + self.pages_1g)
            if self._misconfigured(entry, level, leaf):
                raise SecondLevelFault(gpa, -1)
            allowed &= entry
            at, level = entry & ADDRESS, level - 1
            if leaf:
                return at & -1 << shift | gpa & (1 << shift) - 1, allowed, used

    def _misconfigured(self, entry: int, level: int, leaf: bool) -> bool:
        """SDM 28.3.3.1: writable but not readable, execute-only where unsupported, reserved bits, memory type."""
        if entry & 3 == 2 or (entry & 7 == 4 and not self.exec_only) or entry & bits(51, self.maxphyaddr):
            return True
        if not leaf:
            return bool(entry & (bits(6, 3) | LARGE))
        return entry >> 3 & 7 in (2, 3, 7) or bool(level > 1 and entry & bits(12 + 9 * (level - 1) - 1, 12))


def walk_two_dimensions(
    mode: Paging,
    second: Npt | Ept,
    cr3: int,
    gva: int,
    access: int = 0,
    ac: bool = False,
    pdptes: tuple[int, ...] | None = None,
    pkru: int = 0,
) -> int | tuple[Translation, int]:
    """A guest's tables walked through NPT or EPT: (guest translation, host address), or the guest's #PF error code.

    Raises `SecondLevelFault` where the second level stops the walk (APM 15.25.4, SDM 28.3.1).
    """

    def read(pa: int, size: int) -> int | None:
        return second.read(second.translate(pa, 0, True), size)

    def write(pa: int, size: int, value: int) -> None:
        second.write(second.translate(pa, WRITE, True), size, value)

    result = walk(mode, read, cr3, gva, access, ac, write=write, pdptes=pdptes, pkru=pkru)
    if isinstance(result, int):
        return result
    return result, second.translate(result.address(gva), access, False)
