# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint64_t

from shadowmmu.machine.cpu.registers cimport Registers, RegistersPtr
from shadowmmu.machine.vcpu.l2_control cimport Save, SavePtr
from shadowmmu.machine.vcpu.svm_state cimport SvmPtr, SvmState

cdef struct Left:              # why L2 is left
    uint64_t code, info_1, info_2
    uint64_t event             # that was being delivered, as EXITINTINFO tells it
    bint at_entry              # KVM does it on the way into L2
ctypedef Left *LeftPtr

cdef bint enter_l2(SvmPtr svm, RegistersPtr registers, uint8_t *page, uint64_t gpa, uint8_t priority) noexcept nogil
cdef bint leave_l2(SvmPtr svm, RegistersPtr registers, LeftPtr left, uint8_t priority) noexcept nogil
cdef void load_hidden(SvmPtr svm, RegistersPtr registers, uint8_t *page) noexcept nogil
cdef void save_hidden(SvmPtr svm, RegistersPtr registers, uint8_t *page) noexcept nogil

cdef class Stores:
    cdef object memory, raised
