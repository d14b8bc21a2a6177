# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport RootOps

cdef void legacy_roots(RootOps *ops) noexcept nogil
