# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from shadowmmu.machine.cpu.stop_request cimport Block, BlockPtr, Request, RequestPtr, StopRequest

cdef enum:
    TO_FETCH = 4               # the engine's UC_PROT_EXEC
    BLOCKS = 1 << 16           # translated, before all translations are dropped
    REGIONS = 8
    PORTS = 256                # instructions that reach ports and are watched; beyond, all are
    FOUND = 16

ctypedef int (*translate_t)(void *engine, uint64_t address, int access, uint64_t *place) noexcept nogil
ctypedef int (*save_t)(void *engine, void *context) noexcept nogil

cdef struct Translated:        # the engine's uc_tb
    uint64_t pc
    uint16_t instructions, size
ctypedef Translated *TranslatedPtr

cdef struct Region:            # of host memory
    uint64_t hpa, size
    uint8_t *at

cdef struct Port:              # an instruction, and what is behind it
    Request *request
    uint64_t at, behind
    bint all                   # any instruction may be one
ctypedef Port *PortPtr

cdef struct Counted:
    Request *guest
    Request nobody             # of the way into the guest
    Block *blocks
    uint32_t next              # the one that the engine gives to what it translates next
    void **given               # where it reads that
    uint64_t until             # a block that ends there is ended by an instruction that is none
    uint64_t own_page          # of code that is not the guest's
    translate_t translate
    save_t save
    void *context
    int regions
    Region region[REGIONS]
    int ports
    Port port[PORTS + 1]
    int found                  # not watched yet
    uint64_t found_at[FOUND]
    uint64_t found_behind[FOUND]
ctypedef Counted *CountedPtr

cdef void on_translated(void *engine, TranslatedPtr translated, TranslatedPtr before, void *data) noexcept nogil
cdef void fill(void *engine, CountedPtr counted, BlockPtr block, TranslatedPtr translated) noexcept nogil
cdef uint8_t *code_at(void *engine, CountedPtr counted, uint64_t linear) noexcept nogil
cdef bint may_reach_ports(uint8_t *code, uint32_t size) noexcept nogil
cdef void look_closely(void *engine, CountedPtr counted, BlockPtr block) noexcept nogil
cdef void decode(CountedPtr counted, BlockPtr block, uint8_t *code, uint32_t size) noexcept with gil
cdef bint is_watched(CountedPtr counted, uint64_t at) noexcept nogil
cdef void at_port(void *engine, uint64_t address, uint32_t size, void *data) noexcept nogil
cdef void come_to_port(RequestPtr request, uint64_t address) noexcept nogil

cdef class Blocks:
    cdef Counted counted
    cdef StopRequest request
