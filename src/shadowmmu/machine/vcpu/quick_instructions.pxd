# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint32_t

from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef bint serve_instruction(void *engine, QuickPtr quick, uint32_t code) noexcept nogil
