# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.check.fuzz.memory_author cimport MemoryAuthor

cdef class RegisterAuthor(MemoryAuthor):
    cdef readonly object last_l2
