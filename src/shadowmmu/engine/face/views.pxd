# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, KvmMmu, KvmVcpu, MemSlot, ShadowPage, u64

cdef list entries_of(Kvm *kvm, u64 head)
cdef object view_page(Kvm *kvm, ShadowPage *sp)
cdef tuple kept_roots(KvmMmu *mmu)
cdef object view_mmu(KvmVcpu *vcpu, KvmMmu *mmu)
cdef object view_slot(MemSlot *slot)
