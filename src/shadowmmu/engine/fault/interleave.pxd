# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, unlikely

cdef void let_in(Kvm *kvm) noexcept nogil


cdef inline void interleave(Kvm *kvm, int point) noexcept nogil:
    """Let happen here, once, what was armed for this point, if anything was."""
    if unlikely(kvm.interleave.point == point):
        let_in(kvm)
