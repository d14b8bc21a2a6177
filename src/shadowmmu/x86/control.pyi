# SPDX-License-Identifier: GPL-2.0-only
from enum import IntFlag

class Cr0(IntFlag):
    PE = 0x1
    MP = 0x2
    EM = 0x4
    TS = 0x8
    ET = 0x10
    NE = 0x20
    WP = 0x10000
    AM = 0x40000
    NW = 0x20000000
    CD = 0x40000000
    PG = 0x80000000

class Cr4(IntFlag):
    VME = 0x1
    PVI = 0x2
    TSD = 0x4
    DE = 0x8
    PSE = 0x10
    PAE = 0x20
    MCE = 0x40
    PGE = 0x80
    PCE = 0x100
    OSFXSR = 0x200
    OSXMMEXCPT = 0x400
    UMIP = 0x800
    LA57 = 0x1000
    VMXE = 0x2000
    FSGSBASE = 0x10000
    PCIDE = 0x20000
    OSXSAVE = 0x40000
    SMEP = 0x100000
    SMAP = 0x200000
    PKE = 0x400000

class Efer(IntFlag):
    SCE = 0x1
    LME = 0x100
    LMA = 0x400
    NXE = 0x800
    SVME = 0x1000
    LMSLE = 0x2000
    FFXSR = 0x4000

class Rflags(IntFlag):
    CF = 0x1
    FIXED = 0x2
    TF = 0x100
    INTR = 0x200
    DF = 0x400
    NT = 0x4000
    RF = 0x10000
    VM = 0x20000
    AC = 0x40000

class Cr3(IntFlag):
    PCID_MASK = 0xFFF
    NOFLUSH = 0x8000000000000000
    PAE_TABLE_MASK = 0xFFFFFFE0

def paging_levels(cr0: int, cr4: int, efer: int) -> int: ...
