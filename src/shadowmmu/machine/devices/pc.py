# SPDX-License-Identifier: GPL-2.0-only
"""The small PC: which devices there are, and how they are wired."""

from collections.abc import Callable

from shadowmmu.machine.devices.acpi import PM_EVENTS, PM_TIMER, PmTimer
from shadowmmu.machine.devices.apic_bus import ApicBus
from shadowmmu.machine.devices.clock import Clock
from shadowmmu.machine.devices.fw_cfg import FW_CFG, FwCfg
from shadowmmu.machine.devices.io_apic import PINS, IoApic
from shadowmmu.machine.devices.keyboard import COMMAND_PORT, DATA_PORT, KeyboardController
from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.devices.mmio_bus import MmioBus
from shadowmmu.machine.devices.pic import EDGE_LEVEL, FIRST, SECOND, EdgeLevelControl, PicPair
from shadowmmu.machine.devices.pit import PIT, PORT_61, Pit
from shadowmmu.machine.devices.port_bus import PortBus
from shadowmmu.machine.devices.power import PowerManagement
from shadowmmu.machine.devices.rtc import RTC, Rtc
from shadowmmu.machine.devices.test_device import FLUSH_PORT, LINES, LOOP_PORT, DeviceMemory, FlushPort, LinePorts, LoopPort
from shadowmmu.machine.devices.text_screen import CRTC, DisplayController
from shadowmmu.machine.devices.typist import Typist
from shadowmmu.machine.devices.uart import SerialPort

_TIMER_LINE, _TIMER_PIN = 0, 2
_CASCADE = 2


class Pc:
    """Devices beside those of every machine.

    clock     the machine's
    serial    its serial port
    wake      called when an interrupt may have come for a vCPU
    flush     takes a page of the guest's from it for a moment
    reset     the guest resets the machine
    sleep     it wants to sleep in this way
    waiting   what comes in at the serial port
    """

    def __init__(
        self,
        clock: Clock,
        ports: PortBus,
        serial: SerialPort,
        *,
        memory_mib: int,
        vcpus: int,
        wake: Callable[[], None],
        flush: Callable[[int], None],
        reset: Callable[[], None],
        sleep: Callable[[int], None],
        waiting: bytes,
    ) -> None:
        self._wake = wake
        bus = ApicBus(wake)
        self.pics = PicPair(self._pic_asks)
        self.io_apic = IoApic(bus, vcpus)
        self.local_apics = tuple(
            LocalApic(number, clock, bus, self.pics.acknowledge if number == 0 else lambda: None) for number in range(vcpus)
        )
        self._memory = DeviceMemory()
        self._keyboard = KeyboardController(reset)
        self._power = PowerManagement(sleep)
        self.pics.set_up()
        self._add_ports(ports, clock, serial, memory_mib, vcpus, flush, waiting)

    def _add_ports(
        self, ports: PortBus, clock: Clock, serial: SerialPort, memory_mib: int, vcpus: int, flush: Callable[[int], None], waiting: bytes
    ) -> None:
        pit = Pit(clock, self._tick)
        pit.set_up()
        self._typist = Typist(clock, serial, waiting)
        ports.add(FIRST, 2, self.pics.first)
        ports.add(SECOND, 2, self.pics.second)
        ports.add(EDGE_LEVEL, 2, EdgeLevelControl(self.pics))
        ports.add(PIT, 4, pit)
        ports.add(PORT_61, 1, pit.system_port)
        ports.add(RTC, 2, Rtc(clock, memory_mib))
        ports.add(DATA_PORT, 1, self._keyboard)
        ports.add(COMMAND_PORT, 1, self._keyboard.command)
        ports.add(CRTC, 2, DisplayController())
        ports.add(FW_CFG, 2, FwCfg(memory_mib << 20, vcpus))
        ports.add(PM_EVENTS, 8, self._power)
        ports.add(PM_TIMER, 4, PmTimer(clock))
        ports.add(LOOP_PORT, 4, LoopPort())
        ports.add(FLUSH_PORT, 4, FlushPort(flush))
        ports.add(LINES, PINS, LinePorts(self.set_line))

    def mmio(self, number: int, bus: MmioBus) -> None:
        """What vCPU `number` finds in memory."""
        bus.add(self.local_apics[number], self.io_apic, self._memory)

    def wake_at(self, vector: int) -> None:
        """All processors are reset; the first begins at this address."""
        for apic in self.local_apics:
            apic.init = True
        self.local_apics[0].begins_at = vector
        self._wake()

    def set_line(self, line: int, level: bool) -> None:
        """An interrupt line goes to both controllers."""
        if line < 16 and line != _CASCADE:
            self.pics.set_line(line, level)
        self.io_apic.set_line(_TIMER_PIN if line == _TIMER_LINE else line, level)
        self._wake()

    def _tick(self) -> None:
        """The timer's output rises, and falls again long before the next time."""
        self.local_apics[0].raise_lint0()
        self.set_line(_TIMER_LINE, True)
        self.set_line(_TIMER_LINE, False)

    def _pic_asks(self, asks: bool) -> None:
        self.local_apics[0].extint_line = asks
        self._wake()
