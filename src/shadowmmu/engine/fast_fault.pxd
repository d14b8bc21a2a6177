from shadowmmu.engine.leaf cimport PageFault
from shadowmmu.engine.state cimport KvmVcpu

cdef int fast_page_fault(KvmVcpu *vcpu, PageFault *fault) noexcept nogil
