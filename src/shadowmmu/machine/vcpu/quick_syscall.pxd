# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t

from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef bint serve_syscall(void *engine, QuickPtr quick) noexcept nogil
cdef uint8_t length_of_syscall(void *engine, QuickPtr quick) noexcept nogil
