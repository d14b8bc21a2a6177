from shadowmmu.engine.state cimport KvmVcpu, gpa_t

cdef object walk_nested(KvmVcpu *vcpu, gpa_t gpa)
