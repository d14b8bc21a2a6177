# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint32_t

from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef enum:
    SERIAL_PORT = 0x3F8
    DEBUG_PORT = 0xE9

cdef uint32_t on_in(void *engine, uint32_t port, int size, void *data) noexcept nogil
cdef void on_out(void *engine, uint32_t port, int size, uint32_t value, void *data) noexcept nogil
cdef bint is_open(void *engine, QuickPtr quick) noexcept nogil
cdef void spend(QuickPtr quick) noexcept nogil
cdef bint print_at(QuickPtr quick, uint32_t port, uint32_t value) noexcept nogil
