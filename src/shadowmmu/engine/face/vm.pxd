from shadowmmu.engine.arena.state cimport EventRecord, Kvm, u64, u8

cdef class Vm:
    cdef Kvm *kvm
    cdef EventRecord *buffer
    cdef readonly tuple vcpus
    cdef readonly object config
    cdef object check_slot(self, int result, object name)
    cdef u8 *frame_memory(self, u64 hpa, u64 size) noexcept
