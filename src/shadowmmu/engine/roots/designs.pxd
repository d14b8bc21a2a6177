# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport RootOps

ctypedef void (*SetOps)(RootOps *ops) noexcept nogil

cdef object set_root_ops(RootOps *ops, str name)
