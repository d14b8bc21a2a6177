# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.engine.arena.state cimport KvmVcpu
from shadowmmu.machine.vcpu.quick_state cimport QuickPtr

cdef bint emulate_store(void *engine, QuickPtr quick) noexcept nogil
cdef bint is_plain_memory(QuickPtr quick, uint64_t gpa, int as_id) noexcept nogil
