# SPDX-License-Identifier: GPL-2.0-only
"""Reserved-bit masks of paging-structure entries.

Sources: SDM vol. 3 tables 4-1 to 4-20 and 28-1 to 28-6; APM vol. 2 section 5.3.
`RsvdBits.mask[bit 7 of the entry][level - 1]`: bit 7 selects the leaf form above level 1.

Inline in the .pxd, since it runs in every fault: `is_rsvd`.
"""

import cython
from cython.cimports.libc.string import memset


def rsvd_bits(low: cython.int, high: cython.int) -> cython.ulonglong:
    """A mask of bits `low` to `high`, both included; 0 when high < low."""
    if high < low:
        return 0
    ones: cython.ulonglong = 0
    ones = ~ones
    return (ones >> (63 - (high - low))) << low


def legacy_rsvd_bits(rsvd: RsvdBitsPtr, levels: cython.int, maxphyaddr: cython.int, gates: cython.int) -> cython.void:
    """__reset_rsvds_bits_mask: masks of 2-level (2), PAE (3), 4- and 5-level tables."""
    i: cython.int
    memset(rsvd, 0, cython.sizeof(RsvdBits))
    if levels == 2:
        if gates & GateBits.PSE_ENABLED:
            rsvd.mask[1][1] = rsvd_bits(17, 21) if gates & GateBits.PSE36 else rsvd_bits(13, 21)
        return
    nx: cython.ulonglong = 0 if gates & GateBits.NX_ENABLED else rsvd_bits(63, 63)
    if levels == 3:
        high: cython.ulonglong = rsvd_bits(maxphyaddr, 62)
        rsvd.mask[0][2] = rsvd_bits(63, 63) | high | rsvd_bits(5, 8) | rsvd_bits(1, 2)
        rsvd.mask[0][1] = high | nx
        rsvd.mask[0][0] = high | nx
        rsvd.mask[1][1] = high | nx | rsvd_bits(13, 20)
        rsvd.mask[1][2] = rsvd.mask[0][2]
        rsvd.mask[1][0] = rsvd.mask[0][0]
        return
    base: cython.ulonglong = rsvd_bits(maxphyaddr, 51) | nx
    amd: cython.ulonglong = rsvd_bits(8, 8) if gates & GateBits.AMD else 0
    for i in range(5):
        rsvd.mask[0][i] = base
    rsvd.mask[0][4] |= rsvd_bits(7, 7) | amd
    rsvd.mask[0][3] |= rsvd_bits(7, 7) | amd
    rsvd.mask[0][2] |= 0 if gates & GateBits.HUGE_1G else rsvd_bits(7, 7)
    rsvd.mask[1][4] = rsvd.mask[0][4] | rsvd_bits(7, 7)
    rsvd.mask[1][3] = rsvd.mask[0][3] | rsvd_bits(7, 7)
    rsvd.mask[1][2] = rsvd.mask[0][2] | rsvd_bits(13, 29)
    rsvd.mask[1][1] = base | rsvd_bits(13, 20)
    rsvd.mask[1][0] = rsvd.mask[0][0]


def ept_rsvd_bits(rsvd: RsvdBitsPtr, maxphyaddr: cython.int, huge_level: cython.int, exec_only: cython.bint) -> cython.void:
    """__reset_rsvds_bits_mask_ept: masks of EPT tables, and the bad combinations of memory type and rights."""
    base: cython.ulonglong = rsvd_bits(maxphyaddr, 51)
    rsvd.mask[0][4] = base | rsvd_bits(3, 7)
    rsvd.mask[0][3] = base | rsvd_bits(3, 7)
    rsvd.mask[0][2] = base | rsvd_bits(3, 6) | (0 if huge_level >= 3 else rsvd_bits(7, 7))
    rsvd.mask[0][1] = base | rsvd_bits(3, 6) | (0 if huge_level >= 2 else rsvd_bits(7, 7))
    rsvd.mask[0][0] = base
    rsvd.mask[1][4] = rsvd.mask[0][4]
    rsvd.mask[1][3] = rsvd.mask[0][3]
    rsvd.mask[1][2] = base | rsvd_bits(12, 29) | (0 if huge_level >= 3 else rsvd_bits(7, 7))
    rsvd.mask[1][1] = base | rsvd_bits(12, 20) | (0 if huge_level >= 2 else rsvd_bits(7, 7))
    rsvd.mask[1][0] = rsvd.mask[0][0]
    rsvd.bad_mt_xwr = 0
    value: cython.int
    for value in range(64):
        memtype: cython.int = value >> 3
        rights: cython.int = value & 7
        wrong: cython.bint = memtype == 2 or memtype == 3 or memtype == 7 or rights == 2 or rights == 6
        if rights == 4 and not exec_only:
            wrong = True
        if wrong:
            rsvd.bad_mt_xwr |= rsvd_bits(value, value)
