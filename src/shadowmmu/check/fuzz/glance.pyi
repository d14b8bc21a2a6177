# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Sequence

from typing_extensions import disjoint_base

from shadowmmu.check.fuzz.slots import Slots
from shadowmmu.hardware.walk import Paging, TrailEntry

@disjoint_base
class Glance:
    def __init__(self, slots: Slots) -> None: ...
    def small_page(self, mode: Paging, cr3: int, pdptes: tuple[int, ...], gva: int, access: int) -> int: ...
    def through(self, mode: Paging, cr3: int, pdptes: tuple[int, ...], among: Sequence[int], access: int, page: int) -> int | None: ...
    def trail(self, mode: Paging, cr3: int, pdptes: tuple[int, ...], gva: int) -> list[TrailEntry]: ...
