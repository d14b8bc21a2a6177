# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport u64

cdef u64 word(str name, object value) except? 0xFFFFFFFFFFFFFFFF
