# SPDX-License-Identifier: GPL-2.0-only
"""Where the registers of a local APIC are, and their fields. Sources: SDM vol. 3 chapter 11; APM vol. 2 chapter 16."""

from enum import IntEnum


class ApicReg(IntEnum):
    """Offsets in the page of an xAPIC; an x2APIC has MSR 800h + offset / 10h."""

    ID = 0x020
    VERSION = 0x030
    TPR = 0x080
    ARBITRATION = 0x090
    PPR = 0x0A0
    EOI = 0x0B0
    LDR = 0x0D0
    DFR = 0x0E0
    SPURIOUS = 0x0F0
    ISR = 0x100  # 256 bits, 32 each 10h; so the next two
    TMR = 0x180
    IRR = 0x200
    ESR = 0x280
    ICR = 0x300
    ICR_HIGH = 0x310
    LVT_TIMER = 0x320
    LVT_THERMAL = 0x330
    LVT_COUNTERS = 0x340
    LVT_LINT0 = 0x350
    LVT_LINT1 = 0x360
    LVT_ERROR = 0x370
    TIMER_INITIAL = 0x380
    TIMER_CURRENT = 0x390
    TIMER_DIVIDE = 0x3E0
    SELF_IPI = 0x3F0


class Delivery(IntEnum):
    """Delivery modes of a message to an APIC."""

    FIXED = 0
    LOWEST_PRIORITY = 1
    SMI = 2
    NMI = 4
    INIT = 5
    STARTUP = 6
    EXTINT = 7


class Shorthand(IntEnum):
    """Destinations that ICR names by themselves."""

    NONE = 0
    SELF = 1
    ALL = 2
    OTHERS = 3


DEFAULT_BASE = 0xFEE00000
BASE_BSP, BASE_X2APIC, BASE_ENABLED = 1 << 8, 1 << 10, 1 << 11
SOFTWARE_ENABLED = 1 << 8  # in SPURIOUS
VECTOR, MODE_SHIFT, LOGICAL, BUSY, ASSERT, LEVEL = 0xFF, 8, 1 << 11, 1 << 12, 1 << 14, 1 << 15
SHORTHAND_SHIFT = 18
MASKED = 1 << 16  # in an LVT entry
ILLEGAL_VECTOR_SENT, ILLEGAL_VECTOR_RECEIVED = 1 << 5, 1 << 6  # in ESR
FIRST_VECTOR = 16
X2APIC_MSR, X2APIC_MSR_END = 0x800, 0x900
LVT_WRITABLE = {
    ApicReg.LVT_TIMER: 0x710FF,
    ApicReg.LVT_THERMAL: 0x117FF,
    ApicReg.LVT_COUNTERS: 0x117FF,
    ApicReg.LVT_LINT0: 0x1F7FF,
    ApicReg.LVT_LINT1: 0x1F7FF,
    ApicReg.LVT_ERROR: 0x110FF,
}
"""Offset -> the bits that can be written; bit 12 of them never is."""
