# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport KvmVcpu, u64
from shadowmmu.engine.cpu.legal cimport NestedPaging

cdef bint nested_enter(KvmVcpu *vcpu, u64 cr0, u64 cr3, u64 cr4, u64 efer, NestedPaging paging, u64 root,
                       bint exec_only, int huge_level) noexcept nogil
cdef bint nested_exit(KvmVcpu *vcpu) noexcept nogil
cdef bint nested_exit_at_entry(KvmVcpu *vcpu) noexcept nogil
