# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from shadowmmu.machine.cpu.registers cimport RegisterPtr
from shadowmmu.machine.vcpu.delivery_state cimport DeliveryPtr, GatePtr, StackPtr

cdef bint deliver_event(DeliveryPtr d) noexcept nogil
# What the frame holds.
cdef uint64_t return_rip(DeliveryPtr d) noexcept nogil
cdef uint64_t frame_flags(DeliveryPtr d) noexcept nogil
cdef void enter(DeliveryPtr d, RegisterPtr code, uint64_t rip, uint64_t clear) noexcept nogil
# The ways into a handler.
cdef bint through_real_mode(DeliveryPtr d) noexcept nogil
cdef bint through_gate(DeliveryPtr d) noexcept nogil
cdef bint read_gate(DeliveryPtr d, GatePtr gate) noexcept nogil
cdef bint check_gate(DeliveryPtr d, GatePtr gate, bint present) noexcept nogil
# Segments.
cdef bint read_descriptor(DeliveryPtr d, uint32_t selector, uint8_t vector, RegisterPtr found, uint64_t *address) noexcept nogil
cdef bint code_segment(DeliveryPtr d, uint32_t selector, RegisterPtr found, uint8_t *cpl) noexcept nogil
cdef bint mark_accessed(DeliveryPtr d, RegisterPtr segment, uint64_t address) noexcept nogil
cdef bint read_tss(DeliveryPtr d, uint64_t offset, uint64_t size, void *into) noexcept nogil
cdef bint inner_stack(DeliveryPtr d, uint8_t cpl, StackPtr stack) noexcept nogil
# Frames.
cdef bint long_frame(DeliveryPtr d, GatePtr gate, uint8_t cpl) noexcept nogil
cdef bint long_stack(DeliveryPtr d, GatePtr gate, uint8_t cpl, StackPtr stack) noexcept nogil
cdef bint legacy_frame(DeliveryPtr d, GatePtr gate, uint8_t cpl) noexcept nogil
cdef bint push_outer(DeliveryPtr d, StackPtr stack) noexcept nogil
cdef void set_up_stack(DeliveryPtr d, StackPtr stack, int width, uint64_t user) noexcept nogil
cdef bint push(StackPtr stack, uint64_t value) noexcept nogil
cdef bint is_within(StackPtr stack, uint64_t offset) noexcept nogil
cdef void commit(StackPtr stack) noexcept nogil
