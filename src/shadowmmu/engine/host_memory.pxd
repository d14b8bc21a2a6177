from shadowmmu.engine.state cimport Kvm, u64

cdef inline bint host_writable(u64 mapping) noexcept nogil:
    """The frame may be written now: the host allows it, and it is not the shared zero page."""
    return (mapping & 0x12) == 0x2


cdef u64 fault_in_host_page(Kvm *kvm, u64 hva_page, bint write) noexcept nogil
cdef void unmap_hva_range(Kvm *kvm, u64 start, u64 end) noexcept nogil
cdef void discard_hva_range(Kvm *kvm, u64 start, u64 end) noexcept nogil
cdef void protect_hva_range(Kvm *kvm, u64 start, u64 end, bint writable) noexcept nogil
