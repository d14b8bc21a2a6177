from shadowmmu.engine.state cimport Kvm, gpa_t, u64, u8

cdef u8 *guest_bytes(Kvm *kvm, int as_id, gpa_t gpa, bint write) noexcept nogil
cdef bint read_guest(Kvm *kvm, int as_id, gpa_t gpa, void *into, u64 size) noexcept nogil
cdef bint write_guest(Kvm *kvm, int as_id, gpa_t gpa, void *data, u64 size) noexcept nogil
