# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable
from typing import NamedTuple, Protocol

from typing_extensions import disjoint_base

Read = Callable[[int, int], int | None]
Write = Callable[[int, int, int], None]

PRESENT: int
WRITE: int
USER: int
RESERVED: int
FETCH: int
KEY: int
GUEST_FINAL: int
GUEST_TABLE: int
EXEC: int
ACCESSED: int
DIRTY: int
LARGE: int
GLOBAL: int
KEY_SHIFT: int
ALL: int
NX: int
NO_LEAF: int
NOTHING: int
ADDRESS: int
CR0_WP: int
CR0_PG: int
CR4_PSE: int
CR4_PAE: int
CR4_PGE: int
CR4_LA57: int
CR4_PCIDE: int
CR4_SMEP: int
CR4_SMAP: int
CR4_PKE: int
EFER_LME: int
EFER_LMA: int
EFER_NXE: int

def bits(high: int, low: int) -> int: ...

class Features(NamedTuple):
    maxphyaddr: int = 40
    pages_1g: bool = True
    pse36_width: int = 36
    amd: bool = True

class GuestCpu(Protocol):
    @property
    def maxphyaddr(self) -> int: ...
    @property
    def has_1g(self) -> bool: ...
    @property
    def amd(self) -> bool: ...

def features_of(cpu: GuestCpu) -> Features: ...

class Translation(NamedTuple):
    page: int
    shift: int
    rights: int
    def address(self, gva: int) -> int: ...

@disjoint_base
class Step:
    def __init__(self, level: int, shift: int, mask: int, reserved: int, reserved_large: int) -> None: ...
    level: int
    shift: int
    mask: int
    reserved: int
    reserved_large: int
    def without(self, high: int) -> Step: ...

class TrailEntry(NamedTuple):
    step: int
    pa: int
    entry: int
    address: int
    rights: int

@disjoint_base
class Paging:
    def __init__(self, cr0: int, cr4: int, efer: int, features: Features = ...) -> None: ...
    levels: int
    entry_size: int
    wp: bool
    nx: bool
    keys: bool
    page_global: int
    fetch_code: int
    pse36: int
    pdpte_reserved: int
    steps: tuple[Step, ...]
    allowed: tuple[tuple[bool, ...], ...]
    def permits(self, rights: int, access: int, ac: bool) -> bool: ...
    def key_fault(self, rights: int, access: int, pkru: int) -> int: ...
    def code(self, access: int) -> int: ...

def paging(cr0: int, cr4: int, efer: int, features: Features = ...) -> Paging: ...
def use_entry(mode: Paging, step: Step, entry: int, rights: int) -> tuple[int, int, int, bool]: ...

@disjoint_base
class Tables:
    def load(self, pa: int, size: int) -> int: ...
    def store(self, pa: int, size: int, value: int) -> None: ...

@disjoint_base
class Functions(Tables):
    def __init__(self, read: Read, write: Write | None) -> None: ...

@disjoint_base
class Walk:
    def __init__(self, tables: Tables, *, marks: bool = True, pkru: int = 0) -> None: ...
    pdptes: tuple[int, ...] | None
    depth: int
    page: int
    rights: int
    shift: int
    def go(self, mode: Paging, root: int, gva: int, access: int, ac: bool) -> int: ...
    def translation(self) -> Translation: ...
    def trail(self) -> list[TrailEntry]: ...

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
) -> Translation | int: ...
