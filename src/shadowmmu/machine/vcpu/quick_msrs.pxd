# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint32_t, uint64_t

from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef enum:                     # x86.msr
    APIC_BASE = 0x1B

cdef bint serve_msr(void *engine, QuickPtr quick) noexcept nogil
cdef bint reach_register(void *engine, QuickPtr quick, uint32_t index, bint writes) noexcept nogil
cdef bint reach_plain(void *engine, QuickPtr quick, uint32_t index, bint writes) noexcept nogil
