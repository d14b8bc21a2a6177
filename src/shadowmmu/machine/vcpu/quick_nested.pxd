# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.machine.emulator.code_places cimport PlacePtr
from shadowmmu.machine.memory.guest_tables cimport GuestTables
from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef enum:
    MOST_TOUCHED = 6           # linear addresses: two of the code, two of each memory operand

cdef bint serve_nested_fault(void *engine, QuickPtr quick) noexcept nogil
cdef bint pass_on_nested(void *engine, QuickPtr quick, uint64_t cause) noexcept nogil
cdef uint64_t cause_of(void *engine, QuickPtr quick) noexcept nogil
cdef int find_touched(QuickPtr quick, PlacePtr place, uint64_t *touched) noexcept nogil
cdef uint64_t cause_by(QuickPtr quick, uint64_t *touched, int number) noexcept nogil
cdef bint may_be_early(QuickPtr quick) noexcept nogil
cdef bint is_of_tables(QuickPtr quick, GuestTables tables)
