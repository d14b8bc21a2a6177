# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport int8_t, int32_t, uint8_t, uint32_t, uint64_t

cdef enum:
    CODE_PLACES = 4096         # a power of two
    LONGEST = 15
    TOUCHED = 2

cpdef enum Doing:
    UNKNOWN = 0
    READ_CR = 1                # MOV reg, CRn
    WRITE_CR = 2               # MOV CRn, reg
    INVLPG = 3
    INTERRUPT = 4              # INT n, INT3, INTO
    STORE = 5                  # MOV of a general register or an immediate to memory
    SVM = 6                    # VMRUN and its like; `number` is the exit code, and `value` the bits of rAX that count
    LOAD = 7                   # MOV of four or eight bytes of memory to a general register
    RDTSC = 8
    PAUSE = 9
    CPUID = 10
    MSR = 11                   # RDMSR, WRMSR

cdef struct Address:           # of memory
    int32_t base, index        # general registers; -1: none
    uint8_t scale
    uint8_t segment
    uint64_t displacement
    uint64_t mask              # its bits
    uint32_t size
ctypedef Address *AddressPtr

cdef struct Place:
    uint64_t rip
    uint8_t mode               # 16, 32, 64
    uint8_t length
    uint8_t code[LONGEST]
    uint8_t doing
    uint8_t number             # of the control register, the vector, or the exit code
    int8_t register            # the operand that is no memory; -1: `value`
    uint8_t high, size         # it is the register's second byte; bytes of the operand
    uint64_t value
    Address memory             # the operand
    int touches                # all memory that the instruction uses; -1: more
    Address touched[TOUCHED]
ctypedef Place *PlacePtr

cdef struct Places:
    Place known[CODE_PLACES]
ctypedef Places *PlacesPtr

cdef PlacePtr place_at(PlacesPtr places, uint64_t rip, uint8_t mode) noexcept nogil
cdef bint holds(PlacePtr place, uint64_t rip, uint8_t mode) noexcept nogil
cdef uint64_t address_of(AddressPtr address, uint64_t *gpr, uint64_t segment_base) noexcept nogil
cdef uint64_t operand_value(PlacePtr place, uint64_t *gpr) noexcept nogil
cdef void set_register(PlacePtr place, uint64_t *gpr, uint64_t value) noexcept nogil

cdef class CodePlaces:
    cdef Places places
