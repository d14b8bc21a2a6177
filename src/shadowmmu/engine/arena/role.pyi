# SPDX-License-Identifier: GPL-2.0-only
from enum import IntFlag

class Role(IntFlag):
    LEVEL = 0xF
    HAS_4_BYTE_GPTE = 0x10
    QUADRANT = 0x60
    DIRECT = 0x80
    ACCESS = 0x700
    INVALID = 0x800
    EFER_NX = 0x1000
    CR0_WP = 0x2000
    SMEP_ANDNOT_WP = 0x4000
    SMAP_ANDNOT_WP = 0x8000
    AD_DISABLED = 0x10000
    GUEST_MODE = 0x20000
    PASSTHROUGH = 0x40000
    SMM = 0xFF000000

class RoleShift(IntFlag):
    QUADRANT_SHIFT = 5
    ACCESS_SHIFT = 8
    SMM_SHIFT = 24

class Access(IntFlag):
    EXEC = 1
    WRITE = 2
    USER = 4
    ALL = 7

class Ext(IntFlag):
    VALID = 0x1
    EXECONLY = 0x2
    CR4_PSE = 0x4
    CR4_PKE = 0x8
    CR4_SMAP = 0x10
    CR4_SMEP = 0x20
    CR4_LA57 = 0x40
    EFER_LMA = 0x80
    HAS_PFERR_FETCH = 0x100

def describe_role(role: int) -> str: ...
