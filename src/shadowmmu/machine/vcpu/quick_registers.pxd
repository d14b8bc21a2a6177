# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.machine.cpu.registers cimport RegistersPtr
from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef void take_registers(QuickPtr quick, RegistersPtr into) noexcept nogil
