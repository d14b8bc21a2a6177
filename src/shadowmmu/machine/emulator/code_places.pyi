# SPDX-License-Identifier: GPL-2.0-only
from enum import IntFlag
from typing import final

from shadowmmu.machine.emulator.plain import Plain

class Doing(IntFlag):
    UNKNOWN = 0
    READ_CR = 1
    WRITE_CR = 2
    INVLPG = 3
    INTERRUPT = 4
    STORE = 5
    SVM = 6
    LOAD = 7
    RDTSC = 8
    PAUSE = 9
    CPUID = 10
    MSR = 11

@final
class CodePlaces:
    def knows(self, mode: int, rip: int, code: bytes) -> bool: ...
    def learn(self, mode: int, rip: int, code: bytes, plain: Plain) -> None: ...
