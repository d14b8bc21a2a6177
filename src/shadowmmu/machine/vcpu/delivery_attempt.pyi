# SPDX-License-Identifier: GPL-2.0-only
from typing import final

from shadowmmu.machine.memory.linear_memory import Event, GuestMemory
from shadowmmu.machine.seam import State

@final
class Attempt:
    def __init__(self, state: State, event: Event, memory: GuestMemory, real: bool, long_mode: bool) -> None: ...
    def run(self) -> State | int: ...
