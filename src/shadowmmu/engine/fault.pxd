from shadowmmu.engine.state cimport KvmVcpu, GuestException, gva_t, u64

cdef int mmu_page_fault(KvmVcpu *vcpu, gva_t addr, u64 error_code) noexcept nogil
cdef void inject_page_fault(KvmVcpu *vcpu, GuestException *fault) noexcept nogil
cpdef enum InterleavePoint:                 # where a store of another CPU can be let in
    AFTER_WALK = 1                          # the guest walk is done, mmu_lock not yet taken
    BEFORE_GET_PAGE = 2                     # the top entry was checked, the page below it is not yet protected
