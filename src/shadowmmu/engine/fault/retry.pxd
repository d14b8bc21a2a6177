# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, gva_t, u64

cdef void begin_emulation(KvmVcpu *vcpu, u64 rip, gva_t addr, bint user) noexcept nogil
cdef bint retry_instruction(KvmVcpu *vcpu, bint writes_tables) noexcept nogil
cdef bint retry_failed(KvmVcpu *vcpu) noexcept nogil
cdef bint unprotect_in_delivery(KvmVcpu *vcpu, gva_t gva, bint user, bint faulted) noexcept nogil
