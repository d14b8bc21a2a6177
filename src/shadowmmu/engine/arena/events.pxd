# SPDX-License-Identifier: GPL-2.0-only
# What the engine tells: the kernel's kvmmmu tracepoints, and the entry points that probes see.
# Fields of each kind, in order, stand behind it; `sp` packs gen | unsync << 8 | created << 9 | special << 10.

from shadowmmu.engine.arena.state cimport Kvm, KvmVcpu, ShadowPage, u64, unlikely

cpdef enum Event:
    # kvmmmu tracepoints
    KVM_MMU_PAGETABLE_WALK = 1              # addr, pferr
    KVM_MMU_PAGING_ELEMENT = 2              # pte, level
    KVM_MMU_SET_ACCESSED_BIT = 3            # gpa
    KVM_MMU_SET_DIRTY_BIT = 4               # gpa
    KVM_MMU_WALKER_ERROR = 5                # pferr
    KVM_MMU_GET_PAGE = 6                    # gfn, role, sp, root_count, spt (hpa)
    KVM_MMU_SYNC_PAGE = 7                   # gfn, role, sp, root_count, spt
    KVM_MMU_UNSYNC_PAGE = 8                 # gfn, role, sp, root_count, spt
    KVM_MMU_PREPARE_ZAP_PAGE = 9            # gfn, role, sp, root_count, spt
    MARK_MMIO_SPTE = 10                     # sptep (hpa), gfn, access, gen
    HANDLE_MMIO_PAGE_FAULT = 11             # addr, gfn, access
    FAST_PAGE_FAULT = 12                    # gva, error_code, sptep (hpa), old, new, spurious | fixed << 1
    KVM_MMU_ZAP_ALL_FAST = 13               # gen, used_pages
    CHECK_MMIO_SPTE = 14                    # spte, kvm_gen, spte_gen, valid
    KVM_MMU_SET_SPTE = 15                   # gfn, spte, sptep (hpa), level
    KVM_MMU_SPTE_REQUESTED = 16             # gfn, pfn, level
    KVM_MMU_SPLIT_HUGE_PAGE = 17            # gfn, spte, level, errno
    # entry points
    MMU_LOAD = 32
    NEW_PGD = 33                            # pgd
    LOAD_PGD = 34                           # root (hpa), level
    FREE_ROOTS = 35                         # mask
    RESET_CONTEXT = 36
    SYNC_ROOTS = 37
    SYNC_PREV_ROOTS = 38
    INVLPG = 39                             # gva
    INVALIDATE_GVA = 40                     # gva, root (hpa)
    PTE_WRITE = 41                          # gpa, bytes, val
    UNPROTECT_PAGE = 42                     # gfn
    MMU_PAGE_FAULT = 43                     # addr, error_code
    MMU_PAGE_FAULT_RET = 44                 # ret (1: resume or emulate done, 0 or negative: exit)
    ZAP_OLDEST = 45                         # nr
    SLOT_REMOVE_WRITE = 46                  # slot id, start level
    WRITE_PROTECT_PT_MASKED = 47            # slot id, gfn offset, mask
    ZAP_COLLAPSIBLE = 48                    # slot id
    GUEST_TLB_FLUSH = 49
    INJECT_PAGE_FAULT = 50                  # address, error_code, nested
    SPECIAL_ALLOC = 51                      # role, spt (hpa): ours
    SPECIAL_FREE = 52                       # role, spt (hpa): ours


cdef void record(Kvm *kvm, int vcpu, Event kind, u64 a0, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5) noexcept nogil


cdef inline void emit(Kvm *kvm, int vcpu, Event kind, u64 a0=0, u64 a1=0, u64 a2=0, u64 a3=0, u64 a4=0, u64 a5=0) noexcept nogil:
    """Tell of one event; `vcpu` is -1 where no vCPU is concerned. Costs one test while nobody listens."""
    if unlikely(kvm.events != NULL):
        record(kvm, vcpu, kind, a0, a1, a2, a3, a4, a5)


cdef void emit_sp(Kvm *kvm, int vcpu, Event kind, ShadowPage *sp, int created) noexcept nogil
