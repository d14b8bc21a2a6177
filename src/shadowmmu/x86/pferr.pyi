# SPDX-License-Identifier: GPL-2.0-only
from enum import IntFlag

class Pferr(IntFlag):
    PRESENT = 0x1
    WRITE = 0x2
    USER = 0x4
    RSVD = 0x8
    FETCH = 0x10
    PK = 0x20
    SGX = 0x8000
    GUEST_FINAL = 0x100000000
    GUEST_PAGE = 0x200000000
    IMPLICIT = 0x1000000000000

def describe(error_code: int) -> str: ...
