# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef enum:
    TO_FETCH = 4               # the engine's UC_PROT_EXEC

cdef struct Translated:        # the engine's uc_tb
    uint64_t pc
    uint16_t instructions, size
ctypedef Translated *TranslatedPtr

cdef bint translate(void *owner, uint64_t gva, uint64_t access, uint64_t *place) noexcept nogil
cdef bint walk_tables(QuickPtr quick, uint64_t gva, uint64_t access, uint64_t *place) noexcept nogil
cdef bint load(void *owner, uint64_t place, uint64_t size, void *into) noexcept nogil
cdef bint store(void *owner, uint64_t place, uint64_t size, void *data) noexcept nogil
cdef bint meets_code(QuickPtr quick) noexcept nogil
cdef void put_registers(void *engine, QuickPtr quick) noexcept nogil
cdef void note_fault(QuickPtr quick) noexcept nogil
cdef void note_code(void *engine, QuickPtr quick, uint64_t linear) noexcept nogil
cdef bint deliver_fault(void *engine, QuickPtr quick, uint32_t code, uint64_t address) noexcept nogil
cdef bint deliver_interrupt(void *engine, QuickPtr quick, uint8_t vector, uint64_t next_rip) noexcept nogil
cdef bint checks_alignment(void *engine, QuickPtr quick) noexcept nogil
cdef void on_translated(void *engine, TranslatedPtr block, TranslatedPtr before, void *data) noexcept nogil
