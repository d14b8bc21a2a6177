# SPDX-License-Identifier: GPL-2.0-only
# EPT entries and the EPT pointer. Source: SDM vol. 3 sections 28.3.2 and 24.6.11.

cpdef enum Ept:
    READ = 0x1
    WRITE = 0x2
    EXEC = 0x4
    RWX = 0x7
    MEMTYPE_MASK = 0x38
    IGNORE_PAT = 0x40
    LEAF = 0x80
    ACCESSED = 0x100
    DIRTY = 0x200


cpdef enum Eptp:
    WALK_MEMTYPE = 0x7
    WRITE_BACK = 0x6            # of WALK_MEMTYPE; KVM offers no other
    WALK_LENGTH_MASK = 0x38
    WALK_LENGTH_SHIFT = 3
    AD_ENABLED = 0x40
    RESERVED = 0xF80
