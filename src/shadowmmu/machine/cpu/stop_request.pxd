# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint32_t, uint64_t, uintptr_t

ctypedef int (*emu_stop_t)(void *engine) noexcept nogil

cdef struct Request:
    volatile int wanted      # by any thread
    int stub                 # instructions still to be done in host mode, on the way into the guest
    emu_stop_t emu_stop

ctypedef Request *RequestPtr

cdef void before_instruction(void *engine, uint64_t address, uint32_t size, void *data) noexcept nogil

cdef class StopRequest:
    cdef Request request
