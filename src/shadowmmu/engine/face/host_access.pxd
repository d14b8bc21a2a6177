# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, u64, u8

cdef u8 *frame_memory(Kvm *kvm, u64 hpa, u64 size) noexcept nogil
cdef bint is_guest_frame(Kvm *kvm, u8 *at) noexcept nogil
cdef bint only_marks(Kvm *kvm, u8 *at, u8 *data, u64 size) noexcept nogil
