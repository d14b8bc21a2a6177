# SPDX-License-Identifier: GPL-2.0-only
from typing import final

from shadowmmu.engine.face.types import Outcome
from shadowmmu.engine.face.vcpu import Vcpu

FOREVER: int

@final
class QuickFaults:
    def __init__(self, vcpu: Vcpu) -> None: ...
    def attach(
        self,
        save: int,
        context: int,
        error_code: int,
        mode: int,
        address: int,
        executed: int,
        limit: int,
        reg_read: int,
        flags_register: int,
        slow: int,
    ) -> None: ...
    def set_wrap(self, wrap: int) -> None: ...
    def begin(self, left: int, slice: int, turn_end: int, deadline: int, ticks: int) -> None: ...
    def pause(self) -> None: ...
    def end(self) -> tuple[int, int]: ...
    @property
    def served(self) -> int: ...
    @property
    def last(self) -> int: ...
    def outcome(self, gva: int, code: int) -> Outcome: ...
    @property
    def hook(self) -> int: ...
    @property
    def data(self) -> int: ...
