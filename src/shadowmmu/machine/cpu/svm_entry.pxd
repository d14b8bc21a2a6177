# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint64_t

from shadowmmu.machine.cpu.registers cimport Register, Registers, RegistersPtr
from shadowmmu.machine.cpu.vmcb_page cimport Intercepted

ctypedef int (*restore_t)(void *engine, void *context) noexcept nogil
ctypedef int (*write_t)(void *engine, int register, void *value) noexcept nogil

cdef struct ControlRegisters:  # seam.Controls
    uint64_t cr0, cr3, cr4, efer, ncr3
ctypedef ControlRegisters *ControlsPtr

cdef struct Entry:
    uint8_t *vmcb
    uint64_t vmcb_hpa, lead, stub
    ControlRegisters controls  # that the guest runs with, or is to
    Intercepted intercepts
    Register given[2]          # FS and GS, and as what they were loaded
    Register loaded[2]
    # The processor context.
    void *handle
    uint8_t *context
    uint8_t *host              # as it was in host mode
    uint64_t head              # bytes of it that VMRUN saves and loads
    uint64_t *gpr
    uint64_t *rip
    uint64_t *efer
    uint64_t *debug            # DR6, DR7
    uint64_t host_efer, host_root
    restore_t restore
    write_t reg_write
    int root_register
ctypedef Entry *EntryPtr

cdef void write_vmcb(EntryPtr entry, RegistersPtr registers) noexcept nogil
cdef void restore_given(EntryPtr entry, int number, Register *segment) noexcept nogil
cdef void read_hidden(EntryPtr entry, RegistersPtr registers) noexcept nogil
cdef void to_host(void *engine, EntryPtr entry, uint64_t *gpr, uint64_t dr7) noexcept nogil
cdef uint64_t begin(EntryPtr entry) noexcept nogil
cdef void enter_anew(void *engine, EntryPtr entry, RegistersPtr registers) noexcept nogil

cdef class SvmEntry:
    cdef Entry entry
    cdef object host
