from shadowmmu.engine.arena.state cimport KvmVcpu, u64

cpdef enum NestedPaging:
    NESTED_NONE = 0                         # L2's tables are shadowed by the MMU that shadows L1's
    NESTED_NPT = 1
    NESTED_EPT = 2

cdef bint nested_enter(KvmVcpu *vcpu, u64 cr0, u64 cr3, u64 cr4, u64 efer, NestedPaging paging, u64 root,
                       bint exec_only, int huge_level) noexcept nogil
cdef bint nested_exit(KvmVcpu *vcpu) noexcept nogil
cdef bint nested_exit_at_entry(KvmVcpu *vcpu) noexcept nogil
