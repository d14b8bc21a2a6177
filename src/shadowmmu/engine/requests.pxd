from shadowmmu.engine.state cimport KvmVcpu

cdef int prepare_entry(KvmVcpu *vcpu) noexcept nogil
