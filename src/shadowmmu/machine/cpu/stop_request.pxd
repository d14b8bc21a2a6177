# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint32_t, uint64_t, uintptr_t

ctypedef int (*emu_stop_t)(void *engine) noexcept nogil
ctypedef int (*reg_read_t)(void *engine, int register, void *value) noexcept nogil

cdef enum Window:
    NO, LOOK, SKIP    # SKIP: look from the instruction after the next on

cdef enum:
    INTERRUPTS_ON = 0x200    # EFLAGS.IF

cdef struct Request:
    volatile int wanted      # by any thread
    int stub                 # instructions still to be done in host mode, on the way into the guest
    int window               # stop where the guest can take an interrupt
    int opened               # the last stop was for that
    uint64_t executed        # instructions of the guest so far
    uint64_t limit           # stop when so many have been executed
    emu_stop_t emu_stop
    reg_read_t reg_read
    int flags_register       # the engine's number of EFLAGS

ctypedef Request *RequestPtr

cdef void look_for_window(void *engine, RequestPtr request) noexcept nogil
cdef void before_instruction(void *engine, uint64_t address, uint32_t size, void *data) noexcept nogil

cdef class StopRequest:
    cdef Request request
