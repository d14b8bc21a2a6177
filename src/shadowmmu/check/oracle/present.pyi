# SPDX-License-Identifier: GPL-2.0-only
from typing_extensions import disjoint_base

from shadowmmu.check.oracle.guest_memory import GuestMemory
from shadowmmu.hardware.walk import Tables

@disjoint_base
class Present(Tables):
    def __init__(self, memory: GuestMemory) -> None: ...
    def entries(self) -> list[tuple[int, int, int, int]]: ...
    def leave_out(self, hpa: int, size: int) -> None: ...
