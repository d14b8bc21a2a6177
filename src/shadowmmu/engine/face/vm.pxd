from shadowmmu.engine.arena.state cimport EventRecord, Kvm, u64, u8

cdef class Vm:
    cdef Kvm *kvm
    cdef EventRecord *buffer
    cdef readonly tuple vcpus
    cdef readonly str roots
    cdef readonly int host_levels
    cdef object check_slot(self, int result, object name)
    cdef u8 *frame_memory(self, u64 hpa, u64 size) noexcept
