# SPDX-License-Identifier: GPL-2.0-only
from typing_extensions import disjoint_base

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.shape import Shape
from shadowmmu.check.oracle.translations import AddressSpace
from shadowmmu.check.oracle.unguarded import Unguarded
from shadowmmu.check.oracle.watched_guest import Views, WatchedGuest
from shadowmmu.hardware.walk import Paging, Translation

CR0_CACHE: int

@disjoint_base
class GuestTlb:
    def __init__(self, oracle: WatchedGuest, name: str) -> None: ...
    oracle: WatchedGuest
    memory: GuestMemory
    unguarded: Unguarded
    name: str
    cr0: int
    cr3: int
    cr4: int
    efer: int
    nested: bool
    flushed: bool
    flushed_all: bool
    mode: Paging
    shape: Shape
    views: Views
    space: AddressSpace
    spaces: dict[int, AddressSpace]
    @property
    def pdptes(self) -> tuple[int, ...]: ...
    def four_pdptes(self) -> tuple[int, ...]: ...
    @property
    def strict(self) -> bool: ...
    def load(self, cr0: int, cr3: int, cr4: int, efer: int, *, mov_cr3: bool = False, accepted: bool = True) -> None: ...
    def vmrun(self, cr0: int, ncr3: int, cr4: int, efer: int) -> None: ...
    def flush(self) -> None: ...
    def invlpg(self, gva: int) -> None: ...
    def rebuild(self) -> None: ...
    def possible(self, gva: int) -> set[Translation]: ...
    def leads(self, gva: int, first: int, pages: int) -> bool: ...
