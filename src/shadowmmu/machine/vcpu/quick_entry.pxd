# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.machine.cpu.svm_entry cimport ControlRegisters, ControlsPtr
from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef void go_on(void *engine, QuickPtr quick) noexcept nogil
cdef void stop(void *engine, QuickPtr quick) noexcept nogil
cdef void finish(void *engine, QuickPtr quick) noexcept nogil
cdef uint64_t address_bits(ControlsPtr controls) noexcept nogil
