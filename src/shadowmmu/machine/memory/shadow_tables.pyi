# SPDX-License-Identifier: GPL-2.0-only
from typing import final

from shadowmmu.engine.face.vcpu import Vcpu

@final
class ShadowTables:
    def __init__(self, vcpu: Vcpu) -> None: ...
    def walk(self, gva: int, access: int) -> int: ...
