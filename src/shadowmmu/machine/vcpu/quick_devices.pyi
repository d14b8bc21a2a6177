# SPDX-License-Identifier: GPL-2.0-only
from typing import final

from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.devices.mmio_bus import MmioBus

@final
class QuickDevices:
    def __init__(self, mmio: MmioBus, apic: LocalApic | None) -> None: ...
    def check(self) -> None: ...
