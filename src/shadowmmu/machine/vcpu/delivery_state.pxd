# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from shadowmmu.machine.cpu.registers cimport Register, Registers

cdef enum:
    MOST_STORES = 16           # nine pushes of a frame from virtual-8086 mode, an error code, two descriptors

cdef enum Vector:
    DIVIDE = 0
    BOUND = 5
    UNDEFINED = 6
    NO_DEVICE = 7
    BAD_TSS = 10
    NOT_PRESENT = 11
    STACK_FAULT = 12
    PROTECTION = 13
    PAGE_FAULT = 14
    FLOATING_POINT = 16
    ALIGNMENT = 17
    SIMD = 19

cdef enum GateKind:
    GATE_TASK = 0x5
    GATE_16 = 0x6
    GATE_TRAP_16 = 0x7
    GATE_32 = 0xE
    GATE_TRAP_32 = 0xF

cdef enum Bit:                 # of a segment's attributes, as in x86.vmcb.Attr
    ACCESSED = 0x1
    WRITABLE = 0x2
    EXPAND_DOWN = 0x4          # of code: conforming
    CODE = 0x8
    NON_SYSTEM = 0x10
    PRESENT = 0x80
    LONG = 0x200
    BIG = 0x400
    GRANULARITY = 0x800

cdef enum Failure:
    NO_FAILURE
    RAISES                     # an exception of the guest's: `vector`, `code`
    TASK_GATE                  # to the task of the selector `code`
    MEMORY                     # what is asked for memory knows

cdef struct Memory:            # as the CPU reaches it; a place is what `translate` gives for a byte of a page
    void *owner
    bint (*translate)(void *owner, uint64_t gva, uint64_t access, uint64_t *place) noexcept nogil
    bint (*load)(void *owner, uint64_t place, uint64_t size, void *into) noexcept nogil
    bint (*store)(void *owner, uint64_t place, uint64_t size, void *data) noexcept nogil
    uint64_t mask              # the bits of a linear address
    uint8_t canonical_bits

cdef struct Span:              # the parts of an access, one a page
    uint64_t place[2]
    uint64_t size[2]
    int parts
ctypedef Span *SpanPtr

cdef struct Store:
    Span span
    uint64_t value

cdef struct Happening:         # linear_memory.Event
    uint8_t vector
    bint software, external, pushes_error_code
    uint32_t error_code
    bint has_next_rip
    uint64_t next_rip

cdef struct Delivery:
    Registers registers        # of the guest; then those at the handler's first instruction
    Registers before
    Happening event
    Memory memory
    bint real, long_mode, v86
    int stores
    Store store[MOST_STORES]
    Failure failure
    uint8_t vector
    uint32_t code
ctypedef Delivery *DeliveryPtr

cdef struct Gate:
    uint64_t offset
    uint32_t selector
    uint8_t kind, dpl, ist
ctypedef Gate *GatePtr

cdef struct Stack:
    DeliveryPtr delivery
    Register segment
    bint old                   # it is the one that the guest has in SS
    uint64_t pointer, mask, access
    int width
ctypedef Stack *StackPtr

cdef bint do_stores(DeliveryPtr d) noexcept nogil
# Failures.
cdef bint raises(DeliveryPtr d, uint8_t vector, uint32_t code) noexcept nogil
cdef bint raises_for(DeliveryPtr d, uint8_t vector, uint32_t selector) noexcept nogil
cdef bint raises_for_gate(DeliveryPtr d, uint8_t vector) noexcept nogil
cdef uint32_t external(DeliveryPtr d) noexcept nogil
# Memory.
cdef bint translate(DeliveryPtr d, uint64_t gva, uint64_t access, uint64_t *place) noexcept nogil
cdef bint locate(DeliveryPtr d, uint64_t gva, uint64_t size, uint64_t access, SpanPtr span) noexcept nogil
cdef bint read(DeliveryPtr d, uint64_t gva, uint64_t size, void *into) noexcept nogil
cdef bint store_later(DeliveryPtr d, uint64_t gva, uint64_t size, uint64_t access, uint64_t value) noexcept nogil
