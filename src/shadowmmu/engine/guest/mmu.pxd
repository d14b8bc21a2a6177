# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, KvmMmu, KvmVcpu, gpa_t, role_t, spte_t, u32, u64

cdef inline int guest_level(KvmMmu *mmu) noexcept nogil:
    """Levels of the guest's own tables: 0 when it has none."""
    return mmu.cpu_role & 0xF


cdef inline int root_level(KvmMmu *mmu) noexcept nogil:
    """Levels of the shadow tables: 3, 4 or 5."""
    return mmu.root_role & 0xF


cdef inline bint is_direct(KvmMmu *mmu) noexcept nogil:
    return (mmu.root_role & 0x80) != 0


cdef void create_mmus(KvmVcpu *vcpu) noexcept nogil
cdef void init_mmu(KvmVcpu *vcpu) noexcept nogil
cdef void init_shadow_npt(KvmVcpu *vcpu, u64 cr4, u64 efer) noexcept nogil
cdef void init_shadow_ept(KvmVcpu *vcpu, u64 eptp, bint exec_only, int huge_level) noexcept nogil
cdef bint is_noncanonical(KvmVcpu *vcpu, u64 gva) noexcept nogil


cdef u64 read_pdptr(KvmVcpu *vcpu, KvmMmu *mmu, int index) noexcept nogil


cdef inline u64 guest_pgd(KvmVcpu *vcpu, KvmMmu *mmu) noexcept nogil:
    """get_guest_cr3, kvm_mmu_get_guest_pgd: CR3 as the walker of this MMU needs it."""
    return vcpu.nested.ncr3 if mmu.is_guest_mmu else vcpu.cr3


cdef inline u64 get_pdptr(KvmVcpu *vcpu, KvmMmu *mmu, int index) noexcept nogil:
    """A guest PDPTE: from the registers loaded with CR3, but for L1's NPT from memory each time.

    Nested paging has no PDPTE registers on AMD, and the page is not write-protected (H4).
    """
    if not mmu.is_guest_mmu:
        return vcpu.walk_mmu.pdptrs[index] if mmu.is_nested_mmu else mmu.pdptrs[index]
    return read_pdptr(vcpu, mmu, index)
