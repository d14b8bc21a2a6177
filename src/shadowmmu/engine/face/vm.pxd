# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport EventRecord, Kvm, u64

cdef class Vm:
    cdef Kvm *kvm
    cdef EventRecord *buffer
    cdef bytes key                          # of the seal on saved states
    cdef readonly tuple vcpus
    cdef readonly object config
    cdef object check_hva(self, object hva, object size)
    cdef object check_slot(self, int result, object name)
    cdef u64 present_bytes(self, u64 gpa, u64 size, int address_space, bint write) except? 0xFFFFFFFFFFFFFFFF
