# SPDX-License-Identifier: GPL-2.0-only
# Bits of the #PF error code (SDM vol. 3 section 4.7) and of AMD-V's nested page fault EXITINFO1 (APM vol. 2 section 15.25.6).

cpdef enum Pferr:
    PRESENT = 0x1
    WRITE = 0x2
    USER = 0x4
    RSVD = 0x8
    FETCH = 0x10
    PK = 0x20
    SGX = 0x8000
    GUEST_FINAL = 0x100000000           # nested: the fault is on the final guest-physical address
    GUEST_PAGE = 0x200000000            # nested: the fault is on a guest page-table walk
    IMPLICIT = 0x1000000000000          # not architectural: supervisor access by the CPU itself (GDT, IDT, TSS), SMAP's AC does not apply
