# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from shadowmmu.engine.arena.state cimport KvmVcpu
from shadowmmu.engine.face.vcpu cimport Vcpu

cdef enum:
    PAGE_FAULT_EXIT = 0x14E    # what the CPU calls its hook with: 100h and the code of the exit
    NOT_SERVED = 0x7FFFFFFF    # no result of the MMU's

cdef extern from *:
    const uint64_t NO_DEADLINE "UINT64_MAX"

ctypedef int (*save_t)(void *engine, void *context) noexcept nogil
ctypedef int (*reg_read_t)(void *engine, int register, void *value) noexcept nogil
ctypedef void (*slow_t)(void *engine, uint32_t number, void *data) noexcept nogil

cdef struct Quick:
    KvmVcpu *vcpu
    # Where the CPU back end has things: seam.Places.
    save_t save              # reads the processor context into `context`
    void *context
    uint32_t *error_code     # in the context
    uint8_t *mode            # in the context: its two lowest bits are the CPL
    uint64_t *address        # EXITINFO2
    uint64_t *executed       # instructions so far
    uint64_t *limit          # the CPU stops when so many have been executed
    reg_read_t reg_read
    int flags_register       # the engine's number of EFLAGS
    slow_t slow              # the hook of all other exits
    # Of this run.
    uint64_t wrap            # addresses have so many bits
    uint64_t left            # exits that may be served here
    uint64_t slice, turn_end, deadline
    uint64_t ticks           # that an exit takes of `deadline`
    uint64_t last            # instructions that were executed at the last exit served here
    uint64_t fixed, spurious
    int result               # of a fault that the MMU has looked at, but which is not done with that

ctypedef Quick *QuickPtr

cdef void on_exit(void *engine, uint32_t number, void *data) noexcept nogil
cdef bint serve(void *engine, QuickPtr quick) noexcept nogil
cdef void look_from(void *engine, QuickPtr quick) noexcept nogil
cdef bint may_be_served(QuickPtr quick, uint32_t code) noexcept nogil
cdef void count_exit(QuickPtr quick) noexcept nogil
cdef void come_nearer(QuickPtr quick, uint64_t ticks) noexcept nogil

cdef class QuickFaults:
    cdef Quick quick
    cdef Vcpu vcpu
    cdef uint64_t taken_fixed, taken_spurious
