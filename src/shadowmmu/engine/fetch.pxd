from shadowmmu.engine.leaf cimport PageFault
from shadowmmu.engine.state cimport KvmVcpu
from shadowmmu.engine.walker cimport GuestWalker

cdef int fetch(KvmVcpu *vcpu, PageFault *fault, GuestWalker *walker) noexcept nogil
cdef int direct_map(KvmVcpu *vcpu, PageFault *fault) noexcept nogil
