# SPDX-License-Identifier: GPL-2.0-only
"""Bits of the debug registers. Source: SDM vol. 3 section 17.2."""

DR6_GENERAL_DETECT = 1 << 13
DR6_SINGLE_STEP = 1 << 14
DR7_GENERAL_DETECT = 1 << 13
DR7_FIXED = 1 << 10
DR7_WRITABLE = 0xFFFF2BFF
