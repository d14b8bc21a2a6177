# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint32_t, uint64_t

from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef enum:
    HOOKED = 0x100             # what the CPU calls its hook with is this and the code of the exit

cdef void on_exit(void *engine, uint32_t number, void *data) noexcept nogil
cdef void on_syscall(void *engine, void *data) noexcept nogil
cdef bint serve(void *engine, QuickPtr quick, uint32_t code) noexcept nogil
cdef bint serve_fault(void *engine, QuickPtr quick) noexcept nogil
cdef bint serve_own_fault(void *engine, QuickPtr quick) noexcept nogil
cdef bint inject(void *engine, QuickPtr quick) noexcept nogil
cdef void look_from(void *engine, QuickPtr quick) noexcept nogil
cdef bint takes_from_user(QuickPtr quick, uint32_t code) noexcept nogil
cdef bint may_be_served(QuickPtr quick, uint32_t code) noexcept nogil
cdef void count_exit(void *engine, QuickPtr quick) noexcept nogil
cdef void come_nearer(QuickPtr quick, uint64_t ticks) noexcept nogil
