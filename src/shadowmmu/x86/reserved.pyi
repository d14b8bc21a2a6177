# SPDX-License-Identifier: GPL-2.0-only
from enum import IntFlag

class GateBits(IntFlag):
    NX_ENABLED = 0x1
    HUGE_1G = 0x2
    PSE_ENABLED = 0x4
    PSE36 = 0x8
    AMD = 0x10
