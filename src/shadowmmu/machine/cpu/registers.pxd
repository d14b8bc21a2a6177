# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    ES = 0
    CS = 1
    SS = 2
    DS = 3
    FS = 4
    GS = 5
    RAX = 0
    RCX = 1
    RDX = 2
    RBX = 3
    RSP = 4
    R11 = 11

cdef struct Register:          # of a segment, with its hidden part
    uint32_t selector, attr
    uint64_t limit, base
ctypedef Register *RegisterPtr

cdef struct DescriptorTable:
    uint64_t base
    int64_t limit
ctypedef DescriptorTable *TablePtr

cdef struct Registers:         # seam.State
    uint64_t gpr[16]
    uint64_t rip, rflags
    Register segments[6]
    Register ldtr, tr
    DescriptorTable gdtr, idtr
    uint8_t cpl
    bint interrupt_shadow
    uint64_t dr6, dr7
    uint64_t kernel_gs_base, star, sysenter_cs, sysenter_esp, sysenter_eip
ctypedef Registers *RegistersPtr

cdef void take_state(RegistersPtr into, object state)
cdef object state_of(RegistersPtr registers)
cdef object segment_of(RegisterPtr register, object before)
