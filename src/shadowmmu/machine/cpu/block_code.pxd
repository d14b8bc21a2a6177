# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    LONGEST_KEPT = 64          # bytes of code
    KEPT = 1024                # a power of two
    LONGEST_BLOCK = 4352       # this engine ends one behind the instruction that has reached 4,064 bytes

cdef struct Known:
    int bits, length           # 0: nothing is known here
    int number
    uint8_t code[LONGEST_KEPT]
ctypedef Known *KnownPtr

cdef struct AllKnown:          # of one CPU: CPUs may run in several threads
    Known known[KEPT]
ctypedef AllKnown *AllKnownPtr

cdef uint32_t copy_code(uint8_t **parts, uint64_t pc, uint64_t size, uint8_t *into) noexcept nogil
cdef int begun_at(AllKnown *all, uint8_t **parts, uint64_t pc, uint64_t offset, int bits) noexcept nogil
cdef int number_of(AllKnown *all, uint8_t *code, int length, int bits) noexcept nogil
cdef int counted(uint8_t *code, int length, int bits) noexcept with gil
