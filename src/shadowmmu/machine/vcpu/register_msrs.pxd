# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint32_t, uint64_t

from shadowmmu.machine.cpu.registers cimport RegistersPtr
from shadowmmu.machine.vcpu.svm_state cimport SvmPtr

cdef enum Msr:                 # x86.msr
    SYSENTER_CS = 0x174
    SYSENTER_ESP = 0x175
    SYSENTER_EIP = 0x176
    PAT = 0x277
    STAR = 0xC0000081
    LSTAR = 0xC0000082
    CSTAR = 0xC0000083
    SFMASK = 0xC0000084
    FS_BASE = 0xC0000100
    GS_BASE = 0xC0000101
    KERNEL_GS_BASE = 0xC0000102

cdef bint is_register(uint32_t index) noexcept nogil
cdef bint is_switched(uint32_t index) noexcept nogil
cdef bint may_hold(SvmPtr svm, uint32_t index, uint64_t value) noexcept nogil
cdef uint64_t *register_of(SvmPtr svm, RegistersPtr registers, uint32_t index) noexcept nogil
cdef void write_register(SvmPtr svm, RegistersPtr registers, uint32_t index, uint64_t value) noexcept nogil
