# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport RootOps

cdef void prefilled_roots(RootOps *ops) noexcept nogil
