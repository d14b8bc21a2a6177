from shadowmmu.engine.arena.state cimport u64

cdef u64 word(str name, object value) except? 0xFFFFFFFFFFFFFFFF
