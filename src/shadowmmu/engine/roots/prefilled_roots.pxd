from shadowmmu.engine.arena.state cimport RootOps

cdef void prefilled_roots(RootOps *ops) noexcept nogil
