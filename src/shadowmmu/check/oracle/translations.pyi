# SPDX-License-Identifier: GPL-2.0-only
from typing import Protocol

from typing_extensions import disjoint_base

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.leaves import Leaves
from shadowmmu.check.oracle.shape import Shape
from shadowmmu.check.oracle.unguarded import Unguarded
from shadowmmu.hardware.walk import Paging, Step

class Walked(Protocol):
    memory: GuestMemory
    unguarded: Unguarded
    mode: Paging
    shape: Shape
    views: list[tuple[Paging, tuple[Step, ...]]]
    nested: bool
    @property
    def strict(self) -> bool: ...
    @property
    def pdptes(self) -> tuple[int, ...]: ...

@disjoint_base
class AddressSpace(Leaves):
    def __init__(self, tlb: Walked, watched: tuple[int, ...], cr3: int) -> None: ...
    tlb: Walked
    cr3: int
    mixed: bool
    def rebuild(self) -> None: ...
    def look_again(self) -> None: ...
    def entries_changed(self, hpa: int, size: int) -> int: ...
    def tables(self) -> set[int]: ...
    def entries(self) -> set[int]: ...
