# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Container
from typing import NamedTuple, final

from shadowmmu.engine.face.vm import Vm

MAX_VIOLATIONS: int

class Violation(NamedTuple):
    invariant: str
    text: str

@final
class Auditor:
    def __new__(cls, vm: Vm, strict: bool, untold: Container[int]) -> Auditor: ...
    def begin(self, thorough: bool) -> None: ...
    @property
    def found(self) -> list[Violation]: ...
    @property
    def excused(self) -> int: ...
