# SPDX-License-Identifier: GPL-2.0-only
"""The ports on which a guest speaks to the runner (`enum port` of runner.c)."""

from enum import IntEnum


class Port(IntEnum):
    OP = 0xE0
    """The number of the operation that begins."""
    HOST = 0xE1
    """The host shall do the next part of its script."""
    CR2 = 0xE2
    ERROR = 0xE3
    """The error code of a #PF."""
    VALUE = 0xE4
    """What a read gave."""
    CR2_HIGH = 0xE5
    BAD = 0xE6
    GP = 0xE7
    """The error code of a #GP."""
    EXIT_CODE = 0xE8
    EXIT_INFO1 = 0xE9
    EXIT_INFO2 = 0xEA
    """Why an L2 ended, as its L1 reads it."""
    L2_OP = 0xEB
    PDPTE = 0xEC
    """What an L1's first PDPTE holds."""
