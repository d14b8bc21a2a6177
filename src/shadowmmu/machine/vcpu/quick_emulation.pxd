# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.engine.arena.state cimport KvmVcpu
from shadowmmu.machine.emulator.code_places cimport PlacePtr
from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef bint emulate(void *engine, QuickPtr quick, uint64_t address, int outcome) noexcept nogil
cdef PlacePtr plain_move(QuickPtr quick) noexcept nogil
cdef bint access(QuickPtr quick, PlacePtr place, uint64_t gpa, int outcome) noexcept nogil
cdef bint store(QuickPtr quick, PlacePtr place, uint64_t gpa) noexcept nogil
cdef bint is_memory(QuickPtr quick, uint64_t gpa, int as_id) noexcept nogil
cdef bint is_plain_memory(QuickPtr quick, uint64_t gpa, int as_id) noexcept nogil
