# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

from shadowmmu.machine.cpu.block_code cimport AllKnown

ctypedef int (*emu_stop_t)(void *engine) noexcept nogil
ctypedef int (*reg_read_t)(void *engine, int register, void *value) noexcept nogil

cdef enum Window:
    NO, LOOK, SKIP    # SKIP: look from the block after the next on

cdef enum:
    INTERRUPTS_ON = 0x200    # EFLAGS.IF

cdef extern from *:
    """
    #define HEAVY ((uint64_t)1 << 62)
    """
    const uint64_t HEAVY     # more instructions than any limit lets
    void full_fence "__sync_synchronize"() nogil

cdef struct Request          # below

cdef struct Block:           # of translated code
    Request *request         # whose instructions they are: the guest's, or nobody's
    uint64_t pc              # linear
    uint64_t weight          # its instructions; HEAVY: the hook is to look around before it in any case
    uint32_t size
    uint16_t instructions
    uint8_t bits             # 16, 32, 64; where nobody has looked, 0
    bint again               # runs only to do a store once more that has changed the block before
    uint8_t *code[2]         # where it lies, in each of two pages
ctypedef Block *BlockPtr

cdef struct Request:
    volatile int wanted      # by any thread
    int window               # stop where the guest can take an interrupt
    int opened               # the last stop was for that
    uint64_t executed        # instructions of the guest so far, all of the block that runs included
    uint64_t near            # look around before a block with which it would be more
    uint64_t limit           # stop when so many have been executed
    Block *running           # the last that was begun, until the guest leaves it
    Block *rest_of           # it stands at a port, and these have not been counted yet
    uint64_t rest, port
    AllKnown *known          # what code of it has been decoded
    emu_stop_t emu_stop
    reg_read_t reg_read
    int flags_register       # the engine's number of EFLAGS
    # In the processor context.
    uint64_t *rip
    uint64_t *code_base
    uint8_t *mode            # u32: the mode flags

ctypedef Request *RequestPtr

cdef void before_block(void *engine, uint64_t address, uint32_t size, void *data) noexcept nogil
cdef void look_around(void *engine, BlockPtr block) noexcept nogil
cdef void look_for_window(void *engine, RequestPtr request) noexcept nogil
cdef void want_stop(RequestPtr request) noexcept nogil
cdef void mind(RequestPtr request) noexcept nogil
cdef void set_limit(RequestPtr request, uint64_t executed) noexcept nogil
cdef void stop(void *engine, RequestPtr request) noexcept nogil
cdef void settle(RequestPtr request) noexcept nogil
cdef void take_off(RequestPtr request, uint64_t linear, int bits) noexcept nogil
cdef uint64_t offset_in(BlockPtr block, uint64_t linear) noexcept nogil
cdef int code_bits(RequestPtr request) noexcept nogil

cdef class StopRequest:
    cdef Request request
