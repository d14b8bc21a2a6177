# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from typing_extensions import disjoint_base

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.present import Present
from shadowmmu.check.oracle.translations import AddressSpace, Shape
from shadowmmu.check.oracle.unguarded import Unguarded
from shadowmmu.hardware.host_memory import Violation as Violation
from shadowmmu.hardware.two_dimensional import L2
from shadowmmu.hardware.walk import Features, Paging, Step, Translation

NPT_PDPTE_HIGH: int
CR0_CACHE: int
PDPTE: int
PAGE_FAULT: int
Views = list[tuple[Paging, tuple[Step, ...]]]

class Prediction(NamedTuple):
    gva: int
    access: int
    result: Translation | int
    address: int
    nested: bool
    two_dimensions: bool = False

class NotJudged(Exception): ...

@disjoint_base
class Oracle:
    def __init__(self, memory: GuestMemory, watched: Iterable[int], vcpus: int, features: Features, strict: bool = False) -> None: ...
    memory: GuestMemory
    features: Features
    strict: bool
    watched: tuple[int, ...]
    vcpus: tuple[VirtualTlb, ...]
    numbers: dict[int, int]
    edits: int
    aliased: Container[int]
    dirty: set[int]
    written: set[int]
    unguarded: Unguarded
    def stored(self, hpa: int, size: int) -> None: ...
    def marked(self, hpa: int, size: int) -> None: ...
    def store_from_outside(self, hpa: int, size: int, store: Callable[[], None]) -> None: ...
    def memory_changed(self) -> None: ...
    def shape(self, mode: Paging) -> Shape: ...
    def mode(self, cr0: int, cr4: int, efer: int) -> tuple[Paging, Views]: ...

@disjoint_base
class VirtualTlb:
    def __init__(self, oracle: Oracle, name: str) -> None: ...
    oracle: Oracle
    memory: GuestMemory
    unguarded: Unguarded
    name: str
    cr0: int
    cr3: int
    cr4: int
    efer: int
    nested: bool
    l2: L2 | None
    prediction: Prediction | None
    present: Present
    stores: set[int] | None
    flushed: bool
    flushed_all: bool
    mode: Paging
    shape: Shape
    views: Views
    space: AddressSpace
    spaces: dict[int, AddressSpace]
    @property
    def pdptes(self) -> tuple[int, ...]: ...
    @property
    def strict(self) -> bool: ...
    def load(self, cr0: int, cr3: int, cr4: int, efer: int, *, mov_cr3: bool = False, accepted: bool = True) -> None: ...
    def vmrun(self, cr0: int, ncr3: int, cr4: int, efer: int) -> None: ...
    def flush(self) -> None: ...
    def invlpg(self, gva: int) -> None: ...
    def rebuild(self) -> None: ...
    def possible(self, gva: int) -> set[Translation]: ...
    def leads(self, gva: int, first: int, pages: int) -> bool: ...
    def completed(self, gva: int, access: int, ac: bool, hpa: int) -> None: ...
    def lets(self, gva: int, access: int, ac: bool, hpa: int) -> bool: ...
    def stored(self, hpa: int, size: int) -> None: ...
    def emulated_store(self, gpa: int, size: int) -> None: ...
    def before_walk(self, gva: int, access: int, ac: bool, emulated: bool = False) -> None: ...
    def after_walk(self, outcome: str, gpa: int | None, exception: tuple[object, ...] | None) -> None: ...
