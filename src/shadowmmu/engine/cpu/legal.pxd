# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, KvmVcpu, u64

cpdef enum NestedPaging:
    NESTED_NONE = 0                         # L2's tables are shadowed by the MMU that shadows L1's
    NESTED_NPT = 1
    NESTED_EPT = 2

cdef bint is_valid_cr0(u64 value) noexcept nogil
cdef bint is_valid_cr4(Kvm *kvm, u64 value) noexcept nogil
cdef bint is_valid_efer(Kvm *kvm, u64 value) noexcept nogil
cdef bint is_illegal_gpa(Kvm *kvm, u64 gpa) noexcept nogil
cdef bint is_valid_sregs(Kvm *kvm, u64 cr0, u64 cr3, u64 cr4, u64 efer) noexcept nogil
cdef bint is_valid_l2(KvmVcpu *vcpu, u64 cr0, u64 cr4, u64 efer, NestedPaging paging, u64 root) noexcept nogil
