# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.machine.cpu.registers cimport Registers, RegistersPtr
from shadowmmu.machine.vcpu.svm_state cimport SvmPtr, SvmState

cdef bint enter_kernel(SvmPtr svm, RegistersPtr registers) noexcept nogil
