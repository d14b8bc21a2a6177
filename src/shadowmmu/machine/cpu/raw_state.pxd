# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    SPANS = 8

cdef struct Span:              # of the processor's state
    uint64_t at, size
ctypedef Span *SpanPtr

cdef struct Raw:
    uint8_t *state             # the processor's own
    uint8_t *context           # what is read of it, in a saved context
    int spans
    Span span[SPANS]
ctypedef Raw *RawPtr

cdef int read_raw(void *engine, void *raw) noexcept nogil
cdef int write_raw(void *engine, void *raw) noexcept nogil

cdef class RawState:
    cdef Raw raw
