# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from shadowmmu.machine.cpu.registers cimport RegisterPtr, RegistersPtr, TablePtr

cdef struct Intercepted:       # seam.Intercepts
    uint16_t cr_read, cr_write, dr_read, dr_write
    uint32_t exceptions, first, second
ctypedef Intercepted *InterceptedPtr

cdef uint8_t get_u8(uint8_t *page, int at) noexcept nogil
cdef void put_u8(uint8_t *page, int at, uint8_t value) noexcept nogil
cdef uint32_t get_u32(uint8_t *page, int at) noexcept nogil
cdef uint64_t get_u64(uint8_t *page, int at) noexcept nogil
cdef void put_u32(uint8_t *page, int at, uint32_t value) noexcept nogil
cdef void put_u64(uint8_t *page, int at, uint64_t value) noexcept nogil
cdef void get_segment(uint8_t *page, int at, RegisterPtr into) noexcept nogil
cdef void put_segment(uint8_t *page, int at, RegisterPtr segment) noexcept nogil
cdef void get_table(uint8_t *page, int at, TablePtr into) noexcept nogil
cdef void put_table(uint8_t *page, int at, TablePtr table) noexcept nogil
cdef void get_intercepts(uint8_t *page, InterceptedPtr into) noexcept nogil
cdef void put_intercepts(uint8_t *page, InterceptedPtr intercepts) noexcept nogil
cdef void put_hidden(uint8_t *page, RegistersPtr registers) noexcept nogil
