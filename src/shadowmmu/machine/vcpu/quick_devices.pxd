# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint32_t, uint64_t

from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef class QuickDevices:
    cdef object processor, mmio, apic, msrs, ports, raised

cdef uint64_t load_device(QuickPtr quick, uint64_t gpa, int size) noexcept nogil
cdef void store_device(QuickPtr quick, uint64_t gpa, uint64_t value, int size) noexcept nogil
cdef uint32_t load_port(QuickPtr quick, uint32_t port, int size) noexcept nogil
cdef void store_port(QuickPtr quick, uint32_t port, int size, uint32_t value) noexcept nogil
cdef uint64_t task_priority(QuickPtr quick) noexcept nogil
cdef void set_task_priority(QuickPtr quick, uint64_t value) noexcept nogil
cdef void call_host(QuickPtr quick) noexcept nogil
cdef void notice(QuickPtr quick)
cdef void give_up(QuickPtr quick, object error)
