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
    SVM = 8
    OWN_FAULT = 9
    FAULT_FOR_L1 = 10
    NESTED_FIXED = 11
    NESTED_SPURIOUS = 12
    NESTED_FOR_L1 = 13
    SYSCALL = 14
    NESTED_EMULATED = 15
    RDTSC = 16
    PAUSE = 17
    CPUID = 18
    MSR = 19
    OWN_INJECTED = 20
