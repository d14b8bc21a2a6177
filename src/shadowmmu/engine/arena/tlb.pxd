# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, KvmVcpu, Request, gva_t

cdef inline void make_request(KvmVcpu *vcpu, Request request) noexcept nogil:
    """Ask the vCPU to do something before its next guest entry."""
    vcpu.requests |= <unsigned int>request


cdef inline bint test_request(KvmVcpu *vcpu, Request request) noexcept nogil:
    return (vcpu.requests & <unsigned int>request) != 0


cdef void make_all_request(Kvm *kvm, Request request) noexcept nogil
cdef void flush_remote_tlbs(Kvm *kvm) noexcept nogil
cdef void flush_hw_gva(KvmVcpu *vcpu, gva_t gva) noexcept nogil
cdef void flush_hw_all(KvmVcpu *vcpu) noexcept nogil
