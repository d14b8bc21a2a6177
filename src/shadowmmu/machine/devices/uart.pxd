# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t

cdef enum:
    REGISTERS = 8
    DATA = 0                   # `uart.Uart`
    INTERRUPTS = 1
    IDENTIFICATION = 2
    LINE = 3
    MODEM = 4
    LINE_STATUS = 5
    MODEM_STATUS = 6

cdef struct Port:
    uint8_t registers[REGISTERS]
    uint8_t divisor[2]
    bint fifo
    bint sent                  # since the guest has been told
    bint received              # something, which has not been read yet
    bint asks                  # for an interrupt
ctypedef Port *PortPtr

cdef bint latches(PortPtr port, int offset) noexcept nogil
cdef bint look_at(PortPtr port, int offset, uint8_t *value) noexcept nogil
cdef bint only_sends(PortPtr port, int offset) noexcept nogil

cdef class SerialPort:
    cdef Port port
    cdef object send, set_line
    cdef public object on_set_up
    cdef bytearray waiting
    cdef int identification(self)
    cdef object update(self)
    cdef object transmit(self, uint8_t character)
    cdef int take(self)
    cdef int tell(self)
    cdef int looped(self)
