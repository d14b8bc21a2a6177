# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from shadowmmu.engine.arena.state cimport KvmVcpu
from shadowmmu.machine.cpu.registers cimport Registers
from shadowmmu.machine.cpu.vmcb_page cimport Intercepted

cdef enum:
    V_TPR = 0xFF               # fields of V_INTR, as in x86.vmcb.VIntr
    V_IRQ = 1 << 8
    V_MASKING = 1 << 24

cdef struct Control:           # what L1 asks of VMRUN; addresses are L1 physical
    Intercepted asked
    uint64_t iopm_base, msrpm_base, tsc_offset
    uint32_t asid
    uint8_t tlb_control
    uint64_t v_intr
    bint interrupt_shadow, nested_paging
    uint64_t event_inj, ncr3
ctypedef Control *ControlPtr

cdef struct Svm:
    KvmVcpu *vcpu
    bint gif, nmi_masked
    # What DR7 asks for and the CPU does not do: breakpoints on data, and GD.
    bint watches_data, guards_debug
    # Registers that are neither in seam.State nor the MMU's.
    uint64_t lstar, cstar, sfmask, pat
    int64_t tsc_offset
    # This run of L2.
    bint runs
    uint64_t vmcb              # L1 physical address of L1's VMCB
    Control control            # what L1 asked for, as it was at VMRUN
    uint64_t v_intr
    Registers host             # L1's behind VMRUN; so the next
    uint64_t l1_cr3, l1_pat
    int64_t l1_tsc_offset
    uint8_t l1_priority
    # Of the machine.
    Intercepted own
    uint64_t cr4_offered, efer_offered
    uint8_t base_bits          # of a linear address that a register holds
    # How the CPU stores by physical address.
    void *owner
    void (*store)(void *owner, uint64_t gpa, uint64_t size, void *data) noexcept nogil
ctypedef Svm *SvmPtr

cdef bint is_wanted(SvmPtr svm, uint64_t code) noexcept nogil
cdef uint64_t v_intr_now(SvmPtr svm, uint8_t priority) noexcept nogil
cdef bint has_data_breakpoints(uint64_t dr7) noexcept nogil
cdef void note_debug_control(SvmPtr svm, uint64_t dr7) noexcept nogil
cdef Intercepted find_intercepts(SvmPtr svm, bint window) noexcept nogil

cdef class SvmState:
    cdef Svm svm
