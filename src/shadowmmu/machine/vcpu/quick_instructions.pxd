# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint32_t

from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef enum:
    TASK_PRIORITY = 8          # CR8
    HIGHEST_PRIORITY = 15

cdef bint serve_instruction(void *engine, QuickPtr quick, uint32_t code) noexcept nogil
