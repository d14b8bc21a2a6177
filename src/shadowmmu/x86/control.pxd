# SPDX-License-Identifier: GPL-2.0-only
# Control-register bits. Sources: Intel SDM vol. 3 section 2.5, AMD APM vol. 2 section 3.1.

cpdef enum Cr0:
    PE = 0x1            # protected mode
    MP = 0x2
    EM = 0x4
    TS = 0x8
    ET = 0x10
    NE = 0x20
    WP = 0x10000        # supervisor writes honour read-only pages
    AM = 0x40000
    NW = 0x20000000
    CD = 0x40000000
    PG = 0x80000000     # paging


cpdef enum Cr4:
    VME = 0x1
    PVI = 0x2
    TSD = 0x4
    DE = 0x8
    PSE = 0x10          # 4 MB pages in 2-level paging
    PAE = 0x20          # 8-byte entries
    MCE = 0x40
    PGE = 0x80          # global pages
    PCE = 0x100
    OSFXSR = 0x200
    OSXMMEXCPT = 0x400
    UMIP = 0x800
    LA57 = 0x1000       # 5-level paging
    VMXE = 0x2000
    FSGSBASE = 0x10000
    PCIDE = 0x20000     # process-context identifiers
    OSXSAVE = 0x40000
    SMEP = 0x100000     # no supervisor fetch from user pages
    SMAP = 0x200000     # no supervisor data access to user pages, unless EFLAGS.AC
    PKE = 0x400000      # protection keys for user pages


cpdef enum Efer:
    SCE = 0x1           # SYSCALL
    LME = 0x100         # long mode enabled
    LMA = 0x400         # long mode active
    NXE = 0x800         # no-execute bit in 8-byte entries
    SVME = 0x1000       # AMD-V
    LMSLE = 0x2000
    FFXSR = 0x4000


cpdef enum Rflags:
    CF = 0x1
    FIXED = 0x2         # always one
    TF = 0x100
    INTR = 0x200        # IF
    DF = 0x400
    NT = 0x4000
    RF = 0x10000
    VM = 0x20000
    AC = 0x40000


# CR3 fields
cpdef enum Cr3:
    PCID_MASK = 0xFFF
    NOFLUSH = 0x8000000000000000                # with CR4.PCIDE: keep the PCID's translations
    PAE_TABLE_MASK = 0xFFFFFFE0                 # the PAE PDPT is 32-byte aligned


cpdef int paging_levels(unsigned long long cr0, unsigned long long cr4, unsigned long long efer) noexcept nogil
