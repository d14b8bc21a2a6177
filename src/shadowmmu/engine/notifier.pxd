from shadowmmu.engine.state cimport Kvm, u64

cdef void unmap_hva_range(Kvm *kvm, u64 start, u64 end) noexcept nogil
cdef void discard_hva_range(Kvm *kvm, u64 start, u64 end) noexcept nogil
cdef void protect_hva_range(Kvm *kvm, u64 start, u64 end, bint writable) noexcept nogil
