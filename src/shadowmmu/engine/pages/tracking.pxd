# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, gpa_t, u64, u8

cdef enum:
    FLOOD_LIMIT = 3                         # emulated writes in a row that make a table data

cdef void pte_write(KvmVcpu *vcpu, gpa_t gpa, int bytes) noexcept nogil
cdef bint write_emulated(KvmVcpu *vcpu, gpa_t gpa, u8 *data, int bytes) noexcept nogil
