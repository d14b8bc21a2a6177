# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.machine.cpu.registers cimport TablePtr
from shadowmmu.machine.memory.guest_tables cimport GuestTables

cdef uint64_t cause_at(GuestTables tables, uint64_t gva, uint64_t gpa)
cdef bint leads_to(GuestTables tables, uint64_t gva, uint64_t gpa)
cdef bint is_of_table(GuestTables tables, TablePtr table, uint64_t gpa)
