# SPDX-License-Identifier: GPL-2.0-only
"""The devices of the PC, one by one, in virtual time."""

import pytest

from shadowmmu.machine.devices.acpi import firmware
from shadowmmu.machine.devices.apic_bus import ApicBus
from shadowmmu.machine.devices.apic_registers import BASE_BSP, BASE_ENABLED, BASE_X2APIC, DEFAULT_BASE, ApicReg
from shadowmmu.machine.devices.apic_timer import LEAST_PERIOD
from shadowmmu.machine.devices.clock import TICKS_PER_SECOND, Clock
from shadowmmu.machine.devices.fw_cfg import FwCfg
from shadowmmu.machine.devices.io_apic import IO_APIC_BASE, IoApic
from shadowmmu.machine.devices.keyboard import KeyboardController
from shadowmmu.machine.devices.local_apic import LocalApic
from shadowmmu.machine.devices.pic import PicPair
from shadowmmu.machine.devices.pit import FREQUENCY, Pit
from shadowmmu.machine.devices.rtc import Rtc
from shadowmmu.machine.devices.text_screen import SCREEN_SIZE, DisplayController, screen_text
from shadowmmu.machine.devices.typist import Typist
from shadowmmu.machine.devices.uart import SerialPort, Uart
from shadowmmu.machine.loader import Guest, load_bytes
from shadowmmu.machine.machine import Machine
from shadowmmu.machine.result import Reason

_LOGICAL, _LEVEL, _MASKED = 1 << 11, 1 << 15, 1 << 16


class Apics:
    """Two local APICs, enabled, and an I/O APIC."""

    def __init__(self) -> None:
        self.clock, self.bus = Clock(), ApicBus()
        self.one, self.two = (LocalApic(number, self.clock, self.bus) for number in range(2))
        self.io = IoApic(self.bus)
        for apic in (self.one, self.two):
            apic.write(DEFAULT_BASE + ApicReg.SPURIOUS, 4, 0x1FF)

    def pass_time(self, ticks: int) -> None:
        self.clock.advance(ticks)
        self.clock.expire_due()

    def redirect(self, pin: int, entry: int) -> None:
        for half in range(2):
            self.io.write(IO_APIC_BASE, 4, 0x10 + 2 * pin + half)
            self.io.write(IO_APIC_BASE + 0x10, 4, entry >> 32 * half & 0xFFFFFFFF)


# --- the clock


def test_timers_go_off_in_order_and_time_warps_to_the_next() -> None:
    clock, heard = Clock(), list[str]()
    late, soon = clock.timer(lambda: heard.append("late")), clock.timer(lambda: heard.append("soon"))
    late.arm(500)
    soon.arm(100)
    assert clock.next_deadline == 100
    assert clock.warp() and clock.now == 100 and heard == ["soon"]
    clock.advance(1000)
    clock.expire_due()
    assert heard == ["soon", "late"] and not clock.warp()


# --- what the guest prints


def test_a_guest_that_prints_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of it is bounded, and its run ends."""
    monkeypatch.setattr("shadowmmu.machine.devices.console._OUTPUT", 1000)
    code = b"\xb0\x61\xe6\xe9\xeb\xfc"  # again: mov al, 'a'; out 0E9h, al; jmp again
    machine = Machine(Guest(name="x", image="x", memory_mib=1), loaded=load_bytes(Guest(name="x", image="x", format="flat"), code))
    result = machine.run()
    assert (result.reason, len(result.output)) == (Reason.FAILED, 1000) and "it prints without end" in result.detail


def test_a_port_in_loop_mode_holds_as_much_as_its_fifo() -> None:
    port = SerialPort(lambda character: None)
    port.write(Uart.MODEM, 1, 0x10)
    for character in range(100):
        port.write(Uart.DATA, 1, character)
    assert [port.read(Uart.DATA, 1) for _ in range(17)] == [*range(16), 0]


# --- local APIC


def test_priorities_decide_what_comes_first_and_what_waits() -> None:
    apic = Apics().one
    for vector in (0x31, 0x52, 0x44):
        apic.write_register(ApicReg.ICR, 0x40000 | vector)  # to itself
    assert apic.acknowledge() == 0x52
    assert not apic.has_interrupt() and apic.ppr == 0x50
    apic.write_register(ApicReg.EOI, 0)
    apic.set_tpr(0x40)
    assert not apic.has_interrupt(), "of the task's own class"
    apic.set_tpr(0x3F)
    assert apic.acknowledge() == 0x44
    assert apic.read_register(ApicReg.ISR + 0x20) == 1 << 4
    assert apic.read_register(ApicReg.IRR + 0x10) == 1 << 0x11


def test_timer_one_shot_periodic_and_divided() -> None:
    apics = Apics()
    apic = apics.one
    apic.write_register(ApicReg.TIMER_DIVIDE, 0b0010)  # by 8
    apic.write_register(ApicReg.LVT_TIMER, 0x40)
    apic.write_register(ApicReg.TIMER_INITIAL, 100)
    apics.pass_time(240)
    assert apic.read_register(ApicReg.TIMER_CURRENT) == 70 and not apic.irr
    apics.pass_time(560)
    assert apic.acknowledge() == 0x40 and apic.read_register(ApicReg.TIMER_CURRENT) == 0
    apic.end_of_interrupt()
    apic.write_register(ApicReg.LVT_TIMER, 0x20041)
    apic.write_register(ApicReg.TIMER_INITIAL, 100)  # sooner than KVM lets it come
    for _ in range(3):
        apics.pass_time(LEAST_PERIOD)
        assert apic.acknowledge() == 0x41
        apic.end_of_interrupt()


def test_deadline_of_the_time_stamp_counter() -> None:
    apics = Apics()
    apic = apics.one
    apic.write_register(ApicReg.LVT_TIMER, 0x40042)
    apic.timer.set_deadline(5000, offset=1000)
    apics.pass_time(3999)
    assert not apic.irr and apic.timer.tsc_deadline == 5000
    apics.pass_time(1)
    assert apic.acknowledge() == 0x42 and apic.timer.tsc_deadline == 0


@pytest.mark.parametrize(
    ("icr", "one", "two"),
    [
        (0x01000000_00000030, False, True),
        (0xFF000000_00000030, True, True),
        (0x000C0030, False, True),
        (0x00080030, True, True),
        (0x00040030, True, False),
        (0x02000000_00000830, False, True),
        (0x03000000_00000930, True, False),  # lowest priority: one of them
    ],
)
def test_interprocessor_interrupts_find_their_way(icr: int, one: bool, two: bool) -> None:
    apics = Apics()
    for number, apic in enumerate((apics.one, apics.two)):
        apic.write_register(ApicReg.LDR, 1 << 24 + number)
    apics.one.write_register(ApicReg.ICR_HIGH, icr >> 32)
    apics.one.write_register(ApicReg.ICR, icr & 0xFFFFFFFF)
    assert (bool(apics.one.irr), bool(apics.two.irr)) == (one, two)


def test_init_startup_and_nmi_reach_the_other() -> None:
    apics = Apics()
    for value in (0x000C4500, 0x000C4612, 0x000C4400):
        apics.one.write_register(ApicReg.ICR, value)
    assert (apics.two.init, apics.two.startup, apics.two.nmis) == (True, 0x12, 1)
    assert not apics.one.attention


def test_modes_change_only_as_they_may() -> None:
    apic = Apics().one
    base = DEFAULT_BASE | BASE_BSP
    assert not apic.set_base(base | BASE_X2APIC)
    assert apic.set_base(base | BASE_ENABLED | BASE_X2APIC) and not apic.claims(DEFAULT_BASE)
    assert not apic.set_base(base | BASE_ENABLED)
    assert apic.set_base(base) and not apic.set_base(base | BASE_ENABLED | BASE_X2APIC)
    assert apic.set_base(base | BASE_ENABLED) and apic.claims(DEFAULT_BASE + 0x20)


def test_illegal_vectors_are_told() -> None:
    apic = Apics().one
    apic.write_register(ApicReg.ICR, 0x4000F)
    apic.write_register(ApicReg.ESR, 0)
    assert apic.read_register(ApicReg.ESR) == 1 << 5 and not apic.irr


# --- I/O APIC


def test_an_edge_counts_once_and_not_while_masked() -> None:
    apics = Apics()
    apics.redirect(5, 0x35 | _MASKED)
    apics.io.set_line(5, True)
    apics.redirect(5, 0x35)
    assert not apics.one.irr
    apics.io.set_line(5, False)
    apics.io.set_line(5, True)
    assert apics.one.acknowledge() == 0x35 and not apics.one.irr


def test_a_level_comes_again_until_it_is_gone() -> None:
    apics = Apics()
    apics.redirect(6, 1 << 56 | 0x36 | _LEVEL)
    apics.io.set_line(6, True)
    for _ in range(2):
        assert apics.two.acknowledge() == 0x36 and not apics.two.irr
        assert apics.two.tmr >> 0x36 & 1
        apics.two.end_of_interrupt()
    apics.io.set_line(6, False)
    apics.two.acknowledge()
    apics.two.end_of_interrupt()
    assert not apics.two.irr


# --- the old controllers and timers


def test_old_controllers_rank_cascade_and_end() -> None:
    asks: list[bool] = []
    pair = PicPair(asks.append)
    for pic, base in ((pair.first, 0x20), (pair.second, 0x28)):
        for offset, value in ((0, 0x11), (1, base), (1, 4 if base == 0x20 else 2), (1, 1), (1, 0)):
            pic.write(offset, 1, value)
    pair.set_line(12, True)
    pair.set_line(1, True)
    assert asks[-1] and pair.acknowledge() == 0x21
    assert not asks[-1], "a lower one waits"
    pair.first.write(0, 1, 0x20)
    assert asks[-1] and pair.acknowledge() == 0x2C
    pair.second.write(0, 1, 0x20)
    pair.first.write(0, 1, 0x20)
    assert not asks[-1] and pair.acknowledge() == 0x27, "spurious"


def test_interval_timer_rate_and_one_shot() -> None:
    clock, ticks = Clock(), list[int]()
    pit = Pit(clock, lambda: ticks.append(clock.now))
    for offset, value in ((3, 0x34), (0, 0xA9), (0, 0x04)):  # channel 0, rate, 1193
        pit.write(offset, 1, value)
    while len(ticks) < 1000:
        clock.warp()
    assert abs(ticks[-1] - 1000 * 1193 * TICKS_PER_SECOND // FREQUENCY) <= 1
    for offset, value in ((3, 0x30), (0, 0x10), (0, 0x00)):
        pit.write(offset, 1, value)
    clock.warp()
    assert not clock.warp(), "once"


def test_port_61_gates_the_second_channel() -> None:
    clock = Clock()
    pit = Pit(clock, lambda: None)
    pit.system_port.write(0, 1, 1)
    for offset, value in ((3, 0xB0), (2, 0xFF), (2, 0x00)):
        pit.write(offset, 1, value)
    assert not pit.system_port.read(0, 1) & 0x20
    clock.advance(100 * TICKS_PER_SECOND // FREQUENCY + 1)
    pit.write(3, 1, 0x80)  # latch
    clock.advance(1000)
    assert pit.read(2, 1) | pit.read(2, 1) << 8 == 0xFF - 100
    clock.advance(200 * TICKS_PER_SECOND // FREQUENCY)
    assert pit.system_port.read(0, 1) & 0x20


def test_real_time_clock_goes_by_virtual_time() -> None:
    clock = Clock()
    rtc = Rtc(clock, 32)

    def field(index: int) -> int:
        rtc.write(0, 1, index)
        return rtc.read(1, 1)

    clock.advance(3725 * TICKS_PER_SECOND)
    assert [field(index) for index in (4, 2, 0, 9, 0x32)] == [0x01, 0x02, 0x05, 0x26, 0x20]
    assert field(0x17) | field(0x18) << 8 == 31 << 10


# --- keyboard, screen


def test_keyboard_controller_answers_and_resets() -> None:
    resets: list[str] = []
    keyboard = KeyboardController(lambda: resets.append("reset"))
    assert not keyboard.command.read(0, 1) & 1, "nobody types"
    for command, answer in ((0xAA, 0x55), (0x20, 0x61), (0xAB, 0)):
        keyboard.command.write(0, 1, command)
        assert keyboard.command.read(0, 1) & 1 and keyboard.read(0, 1) == answer
    keyboard.command.write(0, 1, 0x60)
    keyboard.write(0, 1, 0x41)
    keyboard.command.write(0, 1, 0x20)
    assert keyboard.read(0, 1) == 0x41
    keyboard.write(0, 1, 0xFF)
    assert [keyboard.read(0, 1) for _ in range(2)] == [0xFA, 0xAA]
    for port in (keyboard, keyboard.command) * 100:
        port.write(0, 1, 0xAA)
    assert [keyboard.read(0, 1) for _ in range(17)] == [0xFA, 0x55] * 8 + [0], "what nobody reads is not kept without end"
    keyboard.command.write(0, 1, 0xFE)
    assert resets == ["reset"]


def test_screen_has_lines_and_a_cursor() -> None:
    memory = bytearray(SCREEN_SIZE)
    for at, character in enumerate(b"one"):
        memory[2 * (80 + at)] = character
    assert screen_text(bytes(memory)) == ["", "one"]
    controller = DisplayController()
    controller.write(0, 1, 14)
    controller.write(1, 1, 7)
    assert controller.read(1, 1) == 7
    controller.write(0, 2, 0x120F)
    assert (controller.read(0, 1), controller.read(1, 1)) == (15, 0x12)


# --- serial port, firmware


def test_serial_port_receives_with_an_interrupt() -> None:
    clock, lines = Clock(), list[bool]()
    port = SerialPort(lambda character: None, lines.append)
    Typist(clock, port, b"ab")
    assert not clock.warp(), "nothing comes before the line is set up"
    port.write(Uart.LINE, 1, 3)
    port.write(Uart.INTERRUPTS, 1, 1)
    assert clock.warp() and clock.warp(), "the second character waits"
    assert lines[-1] and port.read(Uart.LINE_STATUS, 1) & 1
    assert port.read(Uart.IDENTIFICATION, 1) == 4
    assert port.read(Uart.DATA, 1) == ord("a") and not lines[-1]
    assert clock.warp() and lines[-1] and port.read(Uart.DATA, 1) == ord("b") and not clock.warp()
    assert not lines[-1] and not port.read(Uart.LINE_STATUS, 1) & 1
    port.write(Uart.INTERRUPTS, 1, 2)
    assert lines[-1] and port.read(Uart.IDENTIFICATION, 1) == 2 and port.read(Uart.IDENTIFICATION, 1) == 1


def test_a_serial_port_in_a_loop_is_its_own_modem() -> None:
    port = SerialPort(lambda character: None)
    assert port.read(Uart.MODEM_STATUS, 1) == 0xB0
    for control, status in ((0x1A, 0x90), (0x15, 0x60), (0x10, 0)):
        port.write(Uart.MODEM, 1, control)
        assert port.read(Uart.MODEM_STATUS, 1) == status


def test_firmware_configuration_is_read_byte_by_byte() -> None:
    device = FwCfg(64 << 20, 3)
    device.write(0, 2, 5)
    assert [device.read(1, 1) for _ in range(3)] == [3, 0, 0]


def test_tables_of_the_firmware_add_up_to_nothing() -> None:
    tables = firmware(2)
    for signature, length in ((b"APIC", 4), (b"FACP", 4), (b"RSDT", 4)):
        table = next(data for data in tables.values() if data.startswith(signature))
        assert int.from_bytes(table[length : length + 4], "little") == len(table)
        assert sum(table) & 0xFF == 0
    root = next(data for data in tables.values() if data.startswith(b"RSD PTR "))
    assert sum(root) & 0xFF == 0 and int.from_bytes(root[16:20], "little") in tables
    at, floating = next((gpa, data) for gpa, data in tables.items() if data.startswith(b"_MP_"))
    table = floating[int.from_bytes(floating[4:8], "little") - at :]
    assert table.startswith(b"PCMP") and sum(table[: int.from_bytes(table[4:6], "little")]) & 0xFF == 0
    assert sum(floating[:16]) & 0xFF == 0 and at % 16 == 0
