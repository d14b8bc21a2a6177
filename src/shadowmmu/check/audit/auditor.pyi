# SPDX-License-Identifier: GPL-2.0-only
from typing import NamedTuple, final

from shadowmmu.engine.face.vm import Vm

MAX_VIOLATIONS: int

class Violation(NamedTuple):
    invariant: str
    text: str

@final
class Auditor:
    def __new__(cls, vm: Vm, strict: bool) -> Auditor: ...
    @property
    def found(self) -> list[Violation]: ...
