from shadowmmu.engine.arena.state cimport KvmVcpu, gpa_t

cdef object walk_nested(KvmVcpu *vcpu, gpa_t gpa)
