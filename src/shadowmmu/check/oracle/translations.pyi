# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Iterator
from typing import Protocol

from typing_extensions import disjoint_base

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.check.oracle.unguarded import Unguarded
from shadowmmu.hardware.walk import Paging, Step, Translation

@disjoint_base
class Node:
    def __init__(self, number: int, above: int) -> None: ...
    number: int
    above: int
    children: tuple[Child, ...]

@disjoint_base
class Child:
    def __init__(self, number: int, step: int, at: int, below: Node | None, pages: tuple[int, ...]) -> None: ...
    number: int
    step: int
    at: int
    below: Node | None
    pages: tuple[int, ...]

@disjoint_base
class Shape:
    def __init__(self, mode: Paging, watched: tuple[int, ...]) -> None: ...
    tops: tuple[Node, ...]
    nodes: tuple[Node, ...]
    children: tuple[Child, ...]

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
class AddressSpace:
    def __init__(self, tlb: Walked, watched: tuple[int, ...], cr3: int) -> None: ...
    tlb: Walked
    cr3: int
    mixed: bool
    def forget(self) -> None: ...
    def keep_global(self) -> None: ...
    def drop(self, gva: int, only_global: bool) -> None: ...
    def rebuild(self) -> None: ...
    def look_again(self) -> None: ...
    def entries_changed(self, hpa: int, size: int) -> int: ...
    def tables(self) -> set[int]: ...
    def entries(self) -> set[int]: ...
    def members(self, watched: int, only_global: bool = False) -> Iterator[Translation]: ...
    def leads(self, watched: int, gva: int, first: int, pages: int, only_global: bool) -> bool: ...
    def lets(self, watched: int, gva: int, access: int, ac: bool, hpa: int, only_global: bool) -> bool: ...
