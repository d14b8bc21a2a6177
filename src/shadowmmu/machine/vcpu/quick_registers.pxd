# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.machine.cpu.registers cimport RegistersPtr
from shadowmmu.machine.emulator.code_places cimport PlacePtr
from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef void take_registers(QuickPtr quick, RegistersPtr into) noexcept nogil
cdef void take_registers_behind(QuickPtr quick, PlacePtr place, RegistersPtr into) noexcept nogil
