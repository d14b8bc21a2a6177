# SPDX-License-Identifier: GPL-2.0-only
"""What firmware leaves in memory: interrupt vectors, the BIOS data area, the MP table, and the ACPI tables that name APICs and PM timer.

Sources: ACPI 1.0b chapter 5; MultiProcessor Specification 1.4 chapter 4.
"""

import struct

from shadowmmu.machine.devices.apic_registers import DEFAULT_BASE
from shadowmmu.machine.devices.clock import TICKS_PER_SECOND, Clock
from shadowmmu.machine.devices.io_apic import IO_APIC_BASE

PM_TIMER, PM_FREQUENCY = 0x608, 3_579_545
PM_EVENTS, PM_CONTROL = 0x600, 0x604
_DATA_AREA, _EXTENDED_AREA, _TABLES, _RSDP = 0x400, 0x9FC00, 0xE0000, 0xF0000
WAKING_VECTOR, SLEEP_TO_MEMORY = _TABLES + 12, 1
"""Where FACS has the vector to wake at; the type of S3 in the control register, which DSDT does not tell."""
_BASE_MEMORY_KIB = 639
_OEM = b"SHADOW"
_HANDLERS, _HANDLERS_SEGMENT = 0xF0100, 0xF010
_HANDLER_CODE = bytes.fromhex("50b020e6a0e62058cf50b020e62058cfcf")
"""push ax; mov al, 20h; out A0h, al; out 20h, al; pop ax; iret - then the same without A0h, then iret alone."""
_END_FIRST, _RETURN = 9, 16
_IO_APIC_VERSION, _LAPIC_VERSION = 0x11, 0x14
_ISA_LINES = 16
_ENABLED, _BOOTSTRAP = 1, 2


def _sum_to_zero(table: bytes, at: int) -> bytes:
    """The checksum at byte `at` makes all bytes add up to 0."""
    return table[:at] + bytes((-sum(table) & 0xFF,)) + table[at + 1 :]


def _table(signature: bytes, body: bytes, revision: int = 1) -> bytes:
    header = struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(body), revision, 0, _OEM, b"SHADOWMM", 1, b"SMMU", 1)
    return _sum_to_zero(header + body, 9)


def _madt(vcpus: int) -> bytes:
    """Local APICs, the I/O APIC, and line 0, which is on its pin 2."""
    body = struct.pack("<II", DEFAULT_BASE, 1)
    for number in range(vcpus):
        body += struct.pack("<BBBBI", 0, 8, number, number, 1)
    body += struct.pack("<BBBBII", 1, 12, vcpus, 0, IO_APIC_BASE, 0)
    return _table(b"APIC", body + struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0))


def _fadt(facs: int, dsdt: int) -> bytes:
    """ACPI 1.0's, 116 bytes: events and control of power management, the PM timer."""
    body = bytearray(116 - 36)
    struct.pack_into("<II", body, 0, facs, dsdt)
    struct.pack_into("<H", body, 46 - 36, 9)
    struct.pack_into("<I", body, 56 - 36, PM_EVENTS)
    struct.pack_into("<I", body, 64 - 36, PM_CONTROL)
    struct.pack_into("<I", body, 76 - 36, PM_TIMER)
    struct.pack_into("<BBBB", body, 88 - 36, 4, 2, 0, 4)
    return _table(b"FACP", bytes(body))


def _acpi(vcpus: int) -> dict[int, bytes]:
    """Address -> table."""
    facs = b"FACS" + struct.pack("<I", 64) + bytes(56)
    at = {"facs": _TABLES, "dsdt": _TABLES + 0x40, "fadt": _TABLES + 0x100, "madt": _TABLES + 0x200, "rsdt": _TABLES + 0x800}
    rsdp = _sum_to_zero(struct.pack("<8sB6sBI", b"RSD PTR ", 0, _OEM, 0, at["rsdt"]), 8)
    return {
        at["facs"]: facs,
        at["dsdt"]: _table(b"DSDT", b""),
        at["fadt"]: _fadt(at["facs"], at["dsdt"]),
        at["madt"]: _madt(vcpus),
        at["rsdt"]: _table(b"RSDT", struct.pack("<II", at["fadt"], at["madt"])),
        _RSDP: rsdp,
    }


def _mp_table(vcpus: int) -> bytes:
    """The floating pointer and, behind it, the configuration table."""
    entries = [
        struct.pack("<BBBBII8x", 0, number, _LAPIC_VERSION, _ENABLED | (0 if number else _BOOTSTRAP), 0x600, 0x201)
        for number in range(vcpus)
    ]
    entries.append(struct.pack("<BB6s", 1, 0, b"ISA   "))
    entries.append(struct.pack("<BBBBI", 2, vcpus, _IO_APIC_VERSION, 1, IO_APIC_BASE))
    entries += [struct.pack("<BBHBBBB", 3, 0, 0, 0, line, vcpus, line or 2) for line in range(_ISA_LINES) if line != 2]
    entries += [struct.pack("<BBHBBBB", 4, kind, 0, 0, 0, 0xFF, pin) for kind, pin in ((3, 0), (1, 1))]  # ExtINT, NMI
    body = b"".join(entries)
    sizes = 0, 0, len(entries), DEFAULT_BASE, 0, 0, 0
    header = struct.pack("<4sHBB8s12sIHHIHBB", b"PCMP", 44 + len(body), 4, 0, b"SHADOWMM", b"U           ", *sizes)
    pointer = struct.pack("<4sIBBBBBBBB", b"_MP_", _EXTENDED_AREA + 0x30, 1, 4, 0, 0, 0, 0, 0, 0)
    return _sum_to_zero(pointer, 10).ljust(0x20, b"\0") + _sum_to_zero(header + body, 7)


def _interrupt_vectors() -> bytes:
    """Of real mode: the old controllers' interrupts are ended, from all others the handler returns at once."""
    handlers = [_HANDLERS_SEGMENT << 16 | _RETURN] * 256
    handlers[0x08:0x10] = [_HANDLERS_SEGMENT << 16 | _END_FIRST] * 8
    handlers[0x70:0x78] = [_HANDLERS_SEGMENT << 16] * 8
    return struct.pack("<256I", *handlers)


def _data_area() -> bytes:
    """The serial port, where the extended area begins, and how much memory is below it."""
    area = bytearray(0x100)
    struct.pack_into("<H", area, 0x00, 0x3F8)
    struct.pack_into("<H", area, 0x0E, _EXTENDED_AREA >> 4)
    struct.pack_into("<H", area, 0x13, _BASE_MEMORY_KIB)
    return bytes(area)


def firmware(vcpus: int) -> dict[int, bytes]:
    """Guest physical address -> what lies there."""
    return {
        0: _interrupt_vectors(),
        _HANDLERS: _HANDLER_CODE,
        _DATA_AREA: _data_area(),
        _EXTENDED_AREA + 0x10: _mp_table(vcpus),
        **_acpi(vcpus),
    }


class PmTimer:
    """The 32-bit counter of the PM timer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def read(self, offset: int, size: int) -> int:
        return (self._clock.now * PM_FREQUENCY // TICKS_PER_SECOND & 0xFFFFFFFF) >> 8 * offset

    def write(self, offset: int, size: int, value: int) -> None:
        """It only counts."""
