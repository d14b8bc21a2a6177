# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint64_t

from shadowmmu.machine.vcpu.delivery_state cimport Delivery

cdef bint translate_by(void *owner, uint64_t gva, uint64_t access, uint64_t *place) noexcept nogil
cdef bint load_by(void *owner, uint64_t place, uint64_t size, void *into) noexcept nogil
cdef bint store_by(void *owner, uint64_t place, uint64_t size, void *data) noexcept nogil

cdef class Attempt:
    cdef Delivery d
    cdef object memory, state, raised
    cdef void take_event(self, object event)
    cdef object state_after(self)
    cdef object failed(self)
