# SPDX-License-Identifier: GPL-2.0-only
"""AMD-V's control block (VMCB): byte offsets, intercept bits and exit codes. Source: APM vol. 2, chapter 15 and appendices B and C."""

from enum import IntEnum

from shadowmmu.x86.vmcb_layout import Vmcb as Vmcb

VMCB_SIZE = 4096


class Intercept1(IntEnum):
    """Bits of the u32 at offset 0x00C. Their exit codes are 0x60 + bit number."""

    INTR = 1 << 0
    NMI = 1 << 1
    SMI = 1 << 2
    INIT = 1 << 3
    VINTR = 1 << 4
    CR0_SELECTIVE = 1 << 5  # writes that change more of CR0 than TS and MP
    IDTR_WRITE = 1 << 10
    GDTR_WRITE = 1 << 11
    LDTR_WRITE = 1 << 12
    TR_WRITE = 1 << 13
    RDTSC = 1 << 14
    RDPMC = 1 << 15
    IRET = 1 << 20
    CPUID = 1 << 18
    SOFTWARE_INTERRUPT = 1 << 21
    INVD = 1 << 22
    PAUSE = 1 << 23
    HLT = 1 << 24
    INVLPG = 1 << 25
    INVLPGA = 1 << 26
    IOIO = 1 << 27  # by the I/O permission map
    MSR = 1 << 28  # by the MSR permission map
    TASK_SWITCH = 1 << 29
    FERR_FREEZE = 1 << 30
    SHUTDOWN = 1 << 31


class Intercept2(IntEnum):
    """Bits of the u32 at offset 0x010. Their exit codes are 0x80 + bit number."""

    VMRUN = 1 << 0
    VMMCALL = 1 << 1
    VMLOAD = 1 << 2
    VMSAVE = 1 << 3
    STGI = 1 << 4
    CLGI = 1 << 5
    SKINIT = 1 << 6
    RDTSCP = 1 << 7
    WBINVD = 1 << 9
    MONITOR = 1 << 10
    MWAIT = 1 << 11
    MWAIT_ARMED = 1 << 12
    XSETBV = 1 << 13


class SvmExit(IntEnum):
    """Exit codes; ranges are given by their first member."""

    CR_READ = 0x00  # + register
    CR_WRITE = 0x10  # + register
    DR_READ = 0x20  # + register
    DR_WRITE = 0x30  # + register
    EXCEPTION = 0x40  # + vector
    PAGE_FAULT = 0x4E
    INTR = 0x60  # the first of those with a bit in `Intercept1` and `Intercept2`
    NMI = 0x61
    SMI = 0x62
    INIT = 0x63
    VINTR = 0x64
    CR0_SELECTIVE = 0x65
    IDTR_WRITE = 0x6A
    GDTR_WRITE = 0x6B
    LDTR_WRITE = 0x6C
    TR_WRITE = 0x6D
    RDTSC = 0x6E
    RDPMC = 0x6F
    CPUID = 0x72
    IRET = 0x74
    SOFTWARE_INTERRUPT = 0x75
    INVD = 0x76
    PAUSE = 0x77
    HLT = 0x78
    INVLPG = 0x79
    INVLPGA = 0x7A
    IOIO = 0x7B
    MSR = 0x7C
    TASK_SWITCH = 0x7D
    SHUTDOWN = 0x7F
    VMRUN = 0x80
    VMMCALL = 0x81
    VMLOAD = 0x82
    VMSAVE = 0x83
    STGI = 0x84
    CLGI = 0x85
    SKINIT = 0x86
    RDTSCP = 0x87
    WBINVD = 0x89
    MONITOR = 0x8A
    MWAIT = 0x8B
    MWAIT_ARMED = 0x8C
    XSETBV = 0x8D
    NESTED_PAGE_FAULT = 0x400
    INVALID = 0xFFFFFFFFFFFFFFFF
    """VMRUN found an illegal guest state."""


class TlbControl(IntEnum):
    """What VMRUN drops of the TLB. APM vol. 2 section 15.16."""

    NOTHING = 0
    ALL = 1
    GUEST = 3  # of this ASID
    GUEST_NON_GLOBAL = 7


class VIntr(IntEnum):
    """Fields of the u64 at offset 0x060. APM vol. 2 section 15.21."""

    TPR = 0xFF
    IRQ = 1 << 8  # a virtual interrupt is pending
    PRIORITY_SHIFT = 16  # 4 bits
    IGNORE_TPR = 1 << 20
    MASKING = 1 << 24
    VECTOR_SHIFT = 32  # 8 bits


class EventInj(IntEnum):
    """Fields of EVENTINJ and EXITINTINFO. APM vol. 2 section 15.20."""

    VECTOR = 0xFF
    TYPE_SHIFT = 8
    TYPE_MASK = 7 << 8
    HAS_ERROR_CODE = 1 << 11
    VALID = 1 << 31
    ERROR_CODE_SHIFT = 32


class EventType(IntEnum):
    """The type field of EVENTINJ; others are illegal."""

    INTERRUPT = 0
    NMI = 2
    EXCEPTION = 3
    SOFTWARE_INTERRUPT = 4


class IoInfo(IntEnum):
    """EXITINFO1 of an IOIO exit: the port is in its upper half. APM vol. 2 section 15.10.2."""

    IN = 1 << 0
    STRING = 1 << 2
    REP = 1 << 3
    SIZE_8 = 1 << 4  # then 16 and 32 bits
    ADDRESS_16 = 1 << 7  # then 32 and 64 bits
    SEGMENT_SHIFT = 10  # 3 bits: ES, CS, SS, DS, FS, GS
    PORT_SHIFT = 16


class Attr(IntEnum):
    """The 12 attribute bits of a segment as the VMCB has them: bits 40-47 and 52-55 of the descriptor."""

    ACCESSED = 1 << 0
    WRITABLE = 1 << 1  # of data; for code: readable
    EXPAND_DOWN = 1 << 2  # of data; for code: conforming
    CODE = 1 << 3
    NON_SYSTEM = 1 << 4
    DPL = 3 << 5
    PRESENT = 1 << 7
    AVL = 1 << 8
    LONG = 1 << 9
    BIG = 1 << 10  # 32-bit operands or stack
    GRANULARITY = 1 << 11
