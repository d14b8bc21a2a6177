# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Callable
from typing import final

from shadowmmu.engine.face.vm import Vm

@final
class QuickAudit:
    def __init__(self, audit: Callable[[Vm], None], vm: Vm) -> None: ...
    def check(self) -> None: ...
