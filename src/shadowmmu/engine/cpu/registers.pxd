# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, u64

cdef bint reload_pdptrs(KvmVcpu *vcpu, u64 cr3) noexcept nogil
cdef bint set_cr0(KvmVcpu *vcpu, u64 value) noexcept nogil
cdef bint set_cr3(KvmVcpu *vcpu, u64 value) noexcept nogil
cdef bint set_cr4(KvmVcpu *vcpu, u64 value) noexcept nogil
cdef bint set_efer(KvmVcpu *vcpu, u64 value) noexcept nogil
cdef void set_smm(KvmVcpu *vcpu, bint smm) noexcept nogil
cdef bint set_sregs(KvmVcpu *vcpu, u64 cr0, u64 cr3, u64 cr4, u64 efer) noexcept nogil
