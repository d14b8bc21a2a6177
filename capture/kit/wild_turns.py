# SPDX-License-Identifier: GPL-2.0-only
"""Wild guests with two vCPUs that take turns: each finds what the other has done to tables, roots and slots that both use."""

from __future__ import annotations

from kit.assemble import Assembler
from kit.guest import Mode
from kit.random_guest import Step
from kit.roots import SECOND_CODE, SECOND_STACK
from kit.wild_guest import WildGuest


class WildTurns(WildGuest):
    """A guest of any paging mode. The vCPUs have one list of operations, and code and registers of their own."""

    def __init__(self, name: str, mode: Mode, seed: int) -> None:
        super().__init__(name, mode, seed)
        self.about = f"wild operations of two vCPUs, seed {seed}"
        self.other_vcpus = [self.entry_state | {"rip": SECOND_CODE, "rsp": SECOND_STACK}]
        self.running = 0
        self.asleep = Assembler(self.memory, mode.bits, SECOND_CODE), dict(self.now)
        """The other vCPU's code, and its registers."""

    def steps(self) -> tuple[Step, ...]:
        return (*super().steps(), (14, self._turn))

    def _turn(self) -> None:
        """The other one runs from here on."""
        self.running ^= 1
        self.host(f"on {self.running}")
        (self.code, self.now), self.asleep = self.asleep, (self.code, self.now)

    def _as_user(self) -> None:
        if not self.running:  # the second one's code is the supervisor's
            super()._as_user()
