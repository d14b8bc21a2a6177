# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, GuestException, gva_t, u64

cdef int mmu_page_fault(KvmVcpu *vcpu, gva_t addr, u64 error_code) noexcept nogil
cdef void inject_page_fault(KvmVcpu *vcpu, GuestException *fault) noexcept nogil
