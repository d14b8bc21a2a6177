# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint64_t

from shadowmmu.machine.cpu.registers cimport DescriptorTable, Register
from shadowmmu.machine.vcpu.svm_state cimport ControlPtr, SvmPtr

cdef enum EventType:           # x86.vmcb.EventType
    NMI_EVENT = 2
    EXCEPTION_EVENT = 3
    SOFTWARE_EVENT = 4

cdef struct Save:              # the part of L2's state that VMRUN loads and #VMEXIT saves
    Register segments[4]       # ES, CS, SS, DS
    DescriptorTable gdtr, idtr
    uint8_t cpl
    uint64_t efer, cr4, cr3, cr0, dr7, dr6, rflags, rip, rsp, rax, cr2, g_pat
ctypedef Save *SavePtr

cdef void read_control(uint8_t *page, ControlPtr control) noexcept nogil
cdef void read_save(uint8_t *page, SavePtr save) noexcept nogil
cdef void write_save(uint8_t *page, SavePtr save) noexcept nogil
cdef bint is_legal(SvmPtr svm, SavePtr save) noexcept nogil
cdef bint is_legal_pat(uint64_t value) noexcept nogil
