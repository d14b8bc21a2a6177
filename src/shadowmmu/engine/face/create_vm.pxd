from shadowmmu.engine.arena.state cimport Kvm

cdef Kvm *create_vm(object config) except NULL
