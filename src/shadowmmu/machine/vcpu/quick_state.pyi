# SPDX-License-Identifier: GPL-2.0-only
from enum import IntFlag

class Served(IntFlag):
    FIXED = 0
    SPURIOUS = 1
    CR_READ = 2
    CR_WRITE = 3
    INVLPG = 4
    INJECTED = 5
    INTERRUPT = 6
    EMULATED = 7
