"""AMD-V's control block (VMCB): byte offsets, intercept bits and exit codes. Source: APM vol. 2, appendices B and C."""

from enum import IntEnum


class Vmcb(IntEnum):
    """Byte offsets in the VMCB page."""

    CR_READ_INTERCEPTS = 0x000  # u16, one bit a register; so the next three
    CR_WRITE_INTERCEPTS = 0x002
    DR_READ_INTERCEPTS = 0x004
    DR_WRITE_INTERCEPTS = 0x006
    EXCEPTION_INTERCEPTS = 0x008  # u32, one bit a vector
    INTERCEPTS_1 = 0x00C  # u32, `Intercept1`
    INTERCEPTS_2 = 0x010  # u32, `Intercept2`
    IOPM_BASE = 0x040
    MSRPM_BASE = 0x048
    GUEST_ASID = 0x058
    EXIT_CODE = 0x070
    EXIT_INFO_1 = 0x078
    EXIT_INFO_2 = 0x080
    ES = 0x400  # segments: u16 selector, u16 attributes, u32 limit, u64 base
    CS = 0x410
    SS = 0x420
    DS = 0x430
    FS = 0x440
    GS = 0x450
    GDTR = 0x460
    LDTR = 0x470
    IDTR = 0x480
    TR = 0x490
    CPL = 0x4CB  # u8
    EFER = 0x4D0
    CR4 = 0x548
    CR3 = 0x550
    CR0 = 0x558
    DR7 = 0x560
    DR6 = 0x568
    RFLAGS = 0x570
    RIP = 0x578
    RSP = 0x5D8
    RAX = 0x5F8
    STAR = 0x600
    LSTAR = 0x608
    CSTAR = 0x610
    SFMASK = 0x618
    KERNEL_GS_BASE = 0x620
    SYSENTER_CS = 0x628
    SYSENTER_ESP = 0x630
    SYSENTER_EIP = 0x638
    CR2 = 0x640


class Intercept1(IntEnum):
    """Bits of the u32 at offset 0x00C. Their exit codes are 0x60 + bit number."""

    RDTSC = 1 << 14
    CPUID = 1 << 18
    SOFTWARE_INTERRUPT = 1 << 21
    PAUSE = 1 << 23
    HLT = 1 << 24
    INVLPG = 1 << 25
    INVLPGA = 1 << 26
    MSR = 1 << 28
    TASK_SWITCH = 1 << 29
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
    EXCEPTION = 0x40  # + vector
    PAGE_FAULT = 0x4E
    RDTSC = 0x6E
    CPUID = 0x72
    SOFTWARE_INTERRUPT = 0x75
    PAUSE = 0x77
    HLT = 0x78
    INVLPG = 0x79
    INVLPGA = 0x7A
    MSR = 0x7C
    TASK_SWITCH = 0x7D
    SHUTDOWN = 0x7F
    VMRUN = 0x80
    SKINIT = 0x86
    RDTSCP = 0x87
    WBINVD = 0x89
    MONITOR = 0x8A
    MWAIT = 0x8B
    MWAIT_ARMED = 0x8C
    XSETBV = 0x8D


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
