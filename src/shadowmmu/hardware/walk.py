# SPDX-License-Identifier: GPL-2.0-only
# cython: annotation_typing=False, boundscheck=True, wraparound=True, cdivision=False, nonecheck=True
"""A bare CPU's page walk, over any memory.

`Walk` serves a guest's own tables in guest-physical memory (what a bare CPU would give the guest) and the shadow
tables in host memory (what the real CPU does); `walk` is one of either where memory is two functions: `read(pa, size)`, which may
return None where there is none, and `write(pa, size, value)`. No manual says what an unbacked table reads as; here it reads as not
present.

An *access* is a sum of `WRITE`, `USER`, `FETCH` (none: a supervisor's data read): the bits of the #PF error code
that describe it. *Rights* are what the entries of a path allow together: `WRITE`, `USER`, `EXEC`, and of the
leaf `DIRTY`, `GLOBAL` and the protection key.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

import cython

Read = Callable[[int, int], "int | None"]
Write = Callable[[int, int, int], None]

# Error code of #PF (SDM 4.7); WRITE and USER are also these bits of an entry
PRESENT, WRITE, USER, RESERVED, FETCH, KEY = 1, 2, 4, 8, 16, 32
# Nested page fault, EXITINFO1 (APM 15.25.6)
GUEST_FINAL, GUEST_TABLE = 1 << 32, 1 << 33
# Rights, beside WRITE and USER
EXEC, ACCESSED, DIRTY, LARGE, GLOBAL, KEY_SHIFT = 8, 0x20, 0x40, 0x80, 0x100, 12
ALL = WRITE | USER | EXEC

NX = 1 << 63
NO_LEAF = 1  # as `Step.reserved_large`; bit 0 is never reserved
NOTHING = 1 << 30  # as a fault of `use_entry`: the entry is not present, which no bit of an error code says
ADDRESS = 0x000FFFFFFFFFF000
# What each entry is looked at with, as numbers of C (in the .pxd)
_PRESENT, _RESERVED, _LARGE, _NO_LEAF, _NOTHING = PRESENT, RESERVED, LARGE, NO_LEAF, NOTHING
_EXEC, _DIRTY, _NX, _ADDRESS, _KEY_SHIFT = EXEC, DIRTY, NX, ADDRESS, KEY_SHIFT
_WRITE, _ALL, _ACCESSED, _GLOBAL, _PDPT = WRITE, ALL, ACCESSED, GLOBAL, 0xFFFFFFE0
CR0_WP, CR0_PG = 1 << 16, 1 << 31
CR4_PSE, CR4_PAE, CR4_PGE, CR4_LA57, CR4_PCIDE = 0x10, 0x20, 0x80, 0x1000, 0x20000
CR4_SMEP, CR4_SMAP, CR4_PKE = 1 << 20, 1 << 21, 1 << 22
EFER_LME, EFER_LMA, EFER_NXE = 0x100, 0x400, 0x800


def bits(high: int, low: int) -> int:
    """A mask of the bits `high`..`low`, both included; empty if high < low."""
    return (1 << (high + 1)) - (1 << low) if high >= low else 0


class Features(NamedTuple):
    """What CPUID says of paging."""

    maxphyaddr: int = 40
    pages_1g: bool = True
    pse36_width: int = 36  # physical bits a 4 MB page can name: 36, or up to 40 on later CPUs (SDM table 4-4)
    amd: bool = True  # bit 8 of a PML4E or PML5E must be zero (APM 5.3.3)


class GuestCpu(Protocol):
    """A VM's description of the CPU that its guest sees."""

    @property
    def maxphyaddr(self) -> int: ...
    @property
    def has_1g(self) -> bool: ...
    @property
    def amd(self) -> bool: ...


def features_of(cpu: GuestCpu) -> Features:
    """What is described, as far as a walk needs it."""
    return Features(cpu.maxphyaddr, cpu.has_1g, amd=cpu.amd)


class Translation(NamedTuple):
    """A leaf as a TLB keeps it: physical base of the page, log2 of its size, rights."""

    page: int
    shift: int
    rights: int

    def address(self, gva: int) -> int:
        """The physical address of `gva`, which lies in this page."""
        return self.page | gva & (1 << self.shift) - 1


class Step:
    """One level of a walk: where its index lies in the address, and its must-be-zero bits.

    mask            of the index
    reserved        of an entry that leads to a table, or of a 4 KB leaf
    reserved_large  of a leaf above level 1; NO_LEAF: bit 7 makes none here
    """

    def __init__(self, level: int, shift: int, mask: int, reserved: int, reserved_large: int) -> None:
        self.level, self.shift, self.mask = level, shift, mask
        self.reserved, self.reserved_large = reserved, reserved_large

    def without(self, high: int) -> "Step":
        """The same level where the bits `high` are ignored."""
        return Step(self.level, self.shift, self.mask, self.reserved & ~high, self.reserved_large & ~high)


class TrailEntry(NamedTuple):
    """One entry used by a walk: where it lies, its value, what it leads to, the rights down to it."""

    step: int
    pa: int
    entry: int
    address: int
    rights: int


class Paging:
    """What CR0, CR4, EFER and CPUID make of paging, compiled for the walk. Get one with `paging`."""

    def __init__(self, cr0: int, cr4: int, efer: int, features: Features = Features()) -> None:
        pae, long = bool(cr4 & CR4_PAE), bool(efer & EFER_LME)
        # SDM 4.1.1
        self.levels = 0 if not cr0 & CR0_PG else 2 if not pae else 3 if not long else 5 if cr4 & CR4_LA57 else 4
        self.entry_size = 4 if self.levels == 2 else 8
        self.wp = bool(cr0 & CR0_WP)
        self.nx = bool(efer & EFER_NXE) and self.levels > 2
        self.page_global = GLOBAL if cr4 & CR4_PGE else 0
        self.keys = bool(cr4 & CR4_PKE) and self.levels > 3  # SDM 4.6.2
        # SDM 4.7: I/D is reported if CR4.SMEP, or if both CR4.PAE and EFER.NXE
        self.fetch_code = FETCH if cr4 & CR4_SMEP or self.nx else 0
        self.pse36 = bits(features.pse36_width - 20, 13)
        self.steps = _steps(self.levels, self.nx, bool(cr4 & CR4_PSE), features)
        # SDM table 4-8: PDPTE bits 1-2, 5-8 and everything from MAXPHYADDR up
        self.pdpte_reserved = bits(2, 1) | bits(8, 5) | bits(63, features.maxphyaddr)
        smep, smap = bool(cr4 & CR4_SMEP and self.levels), bool(cr4 & CR4_SMAP and self.levels)
        self.allowed = tuple(
            tuple(_allows(r << 1, a & 3, bool(a & 4), bool(a & 8), self.wp, smep, smap) for r in range(8)) for a in range(16)
        )

    def permits(self, rights: int, access: int, ac: bool) -> bool:
        """Whether `rights` allow `access`, EFLAGS.AC being `ac`; protection keys apart. SDM 4.6.1."""
        return self.allowed[(access >> 1 & 3) | (access & FETCH) >> 2 | ac << 3][rights >> 1 & 7]

    def key_fault(self, rights: int, access: int, pkru: int) -> int:
        """`KEY` if the protection key of a user page forbids a data access, else 0. SDM 4.6.2, 4.7."""
        if not self.keys or access & FETCH or not rights & USER:
            return 0
        key = pkru >> 2 * (rights >> KEY_SHIFT) & 3
        return KEY if key & 1 or (key & 2 and access & WRITE and (access & USER or self.wp)) else 0

    def code(self, access: int) -> int:
        """The bits of a #PF error code that describe the access."""
        return access & (WRITE | USER) | access & self.fetch_code


@lru_cache(maxsize=4096)
def paging(cr0: int, cr4: int, efer: int, features: Features = Features()) -> Paging:
    """The paging mode of these control registers."""
    return Paging(cr0, cr4, efer, features)


def _allows(rights: int, data: int, fetch: bool, ac: bool, wp: bool, smep: bool, smap: bool) -> bool:
    """SDM 4.6.1: `data` has bit 0 for a write and bit 1 for user mode."""
    page_user, user, write = bool(rights & USER), bool(data & 2), bool(data & 1)
    if user and not page_user:
        return False
    if fetch:
        return bool(rights & EXEC) and not (smep and page_user and not user)
    if smap and page_user and not user and not ac:
        return False
    return not write or bool(rights & WRITE) or (not user and not wp)


def _steps(levels: int, nx: bool, pse: bool, features: Features) -> tuple[Step, ...]:
    """Must-be-zero bits of every level: SDM tables 4-4 to 4-6, 4-9 to 4-11, 4-14 to 4-20; APM 5.3."""
    if levels == 2:
        large = bits(21, features.pse36_width - 19) if pse else NO_LEAF
        return Step(2, 22, 0x3FF, 0, large), Step(1, 12, 0x3FF, 0, NO_LEAF)
    high = bits(62 if levels == 3 else 51, features.maxphyaddr) | (0 if nx else NX)
    low = Step(2, 21, 0x1FF, high, high | bits(20, 13)), Step(1, 12, 0x1FF, high, NO_LEAF)
    if levels == 3:
        return low
    top = high | LARGE | (GLOBAL if features.amd else 0)
    pdpte = Step(3, 30, 0x1FF, high, high | bits(29, 13)) if features.pages_1g else Step(3, 30, 0x1FF, high | LARGE, NO_LEAF)
    upper = (Step(5, 48, 0x1FF, top, NO_LEAF), Step(4, 39, 0x1FF, top, NO_LEAF))
    return (*upper[5 - levels :], pdpte, *low) if levels else ()


def use_entry(mode: Paging, step: Step, entry: int, rights: int) -> tuple[int, int, int, bool]:
    """What one entry leads to: (fault, address, rights down to it, is a leaf); a fault is 0, NOTHING or PRESENT|RESERVED.

    SDM 4.3 to 4.5 (formats), 4.6 (rights: a page is writable, or for users, if every entry says so, and no
    instruction may be fetched if any entry has NX).
    """
    if not entry & 1:
        return _NOTHING, 0, 0, False
    leaf = step.level == 1 or (entry & _LARGE != 0 and step.reserved_large != _NO_LEAF)
    if entry & (step.reserved_large if leaf and step.level > 1 else step.reserved):
        return _PRESENT | _RESERVED, 0, 0, False
    rights &= entry | _EXEC
    if entry & _NX and mode.nx:
        rights &= ~_EXEC
    if not leaf:
        return 0, entry & _ADDRESS, rights, False
    rights |= entry & (_DIRTY | mode.page_global)
    if mode.keys:
        rights |= (entry >> 59 & 15) << _KEY_SHIFT
    page = (entry & _ADDRESS) >> step.shift << step.shift
    if step.shift == 22:  # PSE-36: bits 13 and up name the physical bits from 32 (SDM table 4-4)
        page |= (entry & mode.pse36) << 19
    return 0, page, rights, True


class Tables:
    """Memory that a walk goes through."""

    def load(self, pa: int, size: int) -> int:
        """The entry of `size` bytes at `pa`; 0 where there is no memory."""
        raise NotImplementedError

    def store(self, pa: int, size: int, value: int) -> None:
        """The same entry with A or D set."""
        raise NotImplementedError


class Functions(Tables):
    """Memory given as two functions; `read` may return None."""

    def __init__(self, read: Read, write: Write | None) -> None:
        self.read, self.write = read, write

    def load(self, pa: int, size: int) -> int:
        return self.read(pa, size) or 0

    def store(self, pa: int, size: int, value: int) -> None:
        self.write(pa, size, value)


class Walk:
    """A walk through `tables`, and what it came to: the entries used, and the leaf, if it came to one.

    `marks`: it sets A and D. `pdptes`: the PDPTE registers, if there are any.
    """

    def __init__(self, tables: Tables, *, marks: bool = True, pkru: int = 0) -> None:
        self.tables, self.marks, self.pkru = tables, marks, pkru

    def resume(self, at: int, table: int, rights: int) -> None:
        """The next begins lower down, from a paging-structure cache: at the step `at`."""
        self.first, self.table, self.given, self.resumed = at, table, rights, True

    def go(self, mode: Paging, root: int, gva: int, access: int, ac: bool) -> int:
        """DONE, or the error code of the #PF. An entry that changes before it is marked is walked to again."""
        while True:
            fault = self.descend(mode, root, gva)
            if fault:
                return mode.code(access) | fault & ~_NOTHING
            key = mode.key_fault(self.rights, access, self.pkru) if mode.keys else 0
            if key or not mode.permits(self.rights, access, ac):
                return mode.code(access) | _PRESENT | key
            if not self.marks or self.mark(mode.entry_size, access):
                break
        if self.marks and access & _WRITE:
            self.rights |= _DIRTY
        return DONE

    def descend(self, mode: Paging, root: int, gva: int) -> int:
        """From the root, or where it resumes, down to the leaf: 0, or a fault as of `use_entry`."""
        table, rights, self.root, self.depth = root & _ADDRESS, _ALL, root, 0
        if self.resumed:
            table, rights = self.table, self.given
        elif mode.levels == 3:
            pdpte = self.pdpte(root, gva)
            if not pdpte & _PRESENT:
                return _NOTHING
            if pdpte & mode.pdpte_reserved:
                return _PRESENT | _RESERVED
            table = pdpte & _ADDRESS
        for at in range(self.first, len(mode.steps)):
            step: Step = mode.steps[at]
            used = cython.address(self.used[self.depth])
            used.step, used.pa = at, table + (gva >> step.shift & step.mask) * mode.entry_size
            used.entry = self.tables.load(used.pa, mode.entry_size)
            fault, table, rights, leaf = use_entry(mode, step, used.entry, rights)
            used.address, used.rights = table, rights
            self.depth += 1
            if fault:
                return fault
            if leaf:
                self.page, self.rights, self.shift = table, rights, step.shift
                break
        return 0

    def pdpte(self, root: int, gva: int) -> int:
        """SDM 4.4.1; without registers as AMD's CPUs do for a guest (APM 15.25.10)."""
        if self.pdptes is not None:
            return self.pdptes[gva >> 30 & 3]
        return self.tables.load((root & _PDPT) + (gva >> 27 & 0x18), 8)

    def mark(self, size: int, access: int) -> bool:
        """Set A, and D of the leaf, each by compare-and-exchange (SDM 4.8). False: an entry has changed, walk again."""
        for i in range(self.depth):
            used = cython.address(self.used[i])
            marked = used.entry | _ACCESSED
            if i == self.depth - 1 and access & _WRITE:
                marked |= _DIRTY
            if marked != used.entry:
                if self.tables.load(used.pa, size) != used.entry:
                    return False
                self.tables.store(used.pa, size, marked)
        return True

    def translation(self) -> Translation:
        return Translation(self.page, self.shift, self.rights)

    def trail(self) -> list[TrailEntry]:
        """The entries used, as they were before they were marked."""
        found = []
        for i in range(self.depth):
            used = self.used[i]
            found.append(TrailEntry(used.step, used.pa, used.entry, used.address, used.rights))
        return found


def walk(
    mode: Paging,
    read: Read,
    root: int,
    gva: int,
    access: int = 0,
    ac: bool = False,
    *,
    write: Write | None = None,
    pdptes: tuple[int, ...] | None = None,
    pkru: int = 0,
    trail: list[TrailEntry] | None = None,
) -> Translation | int:
    """Translate `gva` for `access`: the `Translation`, or the error code of the #PF.

    `root` is CR3. In PAE mode `pdptes` are the PDPTE registers; without them the PDPTE is read from memory at use.
    `trail` receives the entries used, without PDPTEs.

    An access that is allowed sets A in every entry used and, for a write, D in the leaf (SDM 4.8), if `write` is
    given. A walk that faults sets nothing; a real CPU may set A above the entry that faulted.
    """
    if not mode.levels:
        return Translation(gva & ADDRESS, 12, ALL | DIRTY)
    way = Walk(Functions(read, write), marks=write is not None, pkru=pkru)
    way.pdptes = pdptes
    code = way.go(mode, root, gva, access, ac)
    if trail is not None:
        trail.extend(way.trail())
    return way.translation() if code == DONE else code
