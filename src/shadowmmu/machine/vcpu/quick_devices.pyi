# SPDX-License-Identifier: GPL-2.0-only
from typing import final

from shadowmmu.machine.vcpu.processor import Processor

@final
class QuickDevices:
    def __init__(self, processor: Processor) -> None: ...
    def check(self) -> None: ...
