# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm

cdef void fence_arena(Kvm *kvm) noexcept nogil
cdef void open_arena(Kvm *kvm) noexcept nogil
