# SPDX-License-Identifier: GPL-2.0-only
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from shadowmmu.machine.vcpu.quick_state cimport QuickPtr
from shadowmmu.machine.vcpu.svm_switch cimport Left, LeftPtr

cdef bint is_svm(uint32_t code) noexcept nogil
cdef bint serve_svm(void *engine, QuickPtr quick, uint32_t code) noexcept nogil
cdef bint serve_hypercall(void *engine, QuickPtr quick) noexcept nogil
cdef bint is_for_l1(QuickPtr quick, uint32_t code) noexcept nogil
cdef bint pass_on(void *engine, QuickPtr quick, uint32_t code) noexcept nogil
cdef bint vmexit(void *engine, QuickPtr quick, uint32_t code, uint64_t info_1, uint64_t info_2, bint at_entry, int served) noexcept nogil
cdef bint is_its_own(QuickPtr quick, uint32_t error) noexcept nogil
cdef bint pass_on_fault(void *engine, QuickPtr quick) noexcept nogil
