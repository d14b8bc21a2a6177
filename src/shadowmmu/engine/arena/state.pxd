# SPDX-License-Identifier: GPL-2.0-only
# The types of the engine: everything a VM is lives in ONE arena at a fixed address,
# so that a whole state is copied, compared and saved with one memcpy.

from shadowmmu.x86.pte cimport Pte
from shadowmmu.x86.reserved cimport RsvdBits

ctypedef unsigned char u8
ctypedef u8 *p_u8
ctypedef unsigned short u16
ctypedef u16 *p_u16
ctypedef unsigned int u32
ctypedef u32 *p_u32
ctypedef unsigned long long u64
ctypedef u64 *p_u64

ctypedef u64 gva_t          # guest virtual address, bytes
ctypedef u64 gpa_t          # guest physical address, bytes
ctypedef u64 hpa_t          # host physical address, bytes
ctypedef hpa_t *p_hpa
ctypedef u64 gfn_t          # guest frame number
ctypedef u64 pfn_t          # host frame number
ctypedef u64 spte_t         # a shadow page-table entry
ctypedef spte_t *p_spte
ctypedef u32 role_t         # the kernel's kvm_mmu_page_role word (see role.pxd)

cdef extern from *:
    bint unlikely(bint condition) noexcept nogil    # the kernel's hint to the compiler; Cython defines it in each module

cdef enum:
    PAGE_SHIFT = 12
    PAGE_SIZE = 4096
    ENTRIES = 512           # entries of a shadow page table
    LEVEL_BITS = 9
    HASH_BITS = 12          # KVM_MMU_HASH_SHIFT
    PREV_ROOTS = 3          # KVM_MMU_NUM_PREV_ROOTS
    PTE_LIST_EXT = 14       # sptes of one rmap descriptor
    MAX_SLOTS = 32          # memslots of one address space
    ADDRESS_SPACES = 2      # normal and SMM
    PREFETCH = 8            # PTE_PREFETCH_NUM
    RMAP_RECYCLE_THRESHOLD = 1000
    MAX_GVA_FLUSHES = 8     # single-address TLB flushes kept before a full one is asked for
    HOST_LEVELS_OF_PAGES = 3

cpdef enum Hpa:
    HIGH_ZONE = 0x100000000                 # host memory above 4 GiB begins here
    INVALID_PAGE = 0xFFFFFFFFFFFFFFFF

cpdef enum Gen:
    MMIO_GEN_HIGH_BITS = 11                 # of a mark's generation, above those from bit 3 on
    GEN_UPDATE_IN_PROGRESS = 0x8000000000000000

cpdef enum SlotFlag:
    SLOT_LOG_DIRTY = 0x1                    # KVM_MEM_LOG_DIRTY_PAGES
    SLOT_READONLY = 0x2                     # KVM_MEM_READONLY
    SLOT_INVALID = 0x10000                  # being deleted or moved

cpdef enum ManualProtect:                    # KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2
    MANUAL_PROTECT = 0x1                    # reading a dirty log neither clears it nor protects pages
    INITIALLY_SET = 0x2                     # a log begins with all pages dirty, and none protected

cpdef enum HvaFlag:                          # low bits of a host user-mapping entry, the host's own page table
    HVA_PRESENT = 0x1
    HVA_WRITABLE = 0x2
    HVA_ZERO = 0x10                         # the shared page of zeroes, until the first write
    HVA_CLEAN = 0x20                        # a huge page that is mapped read-only until the first write
    HVA_NO_WRITE_YET = 0x30
    HVA_LEVEL_SHIFT = 2                     # mapping level (1..3) of the host page
    HVA_LEVEL_MASK = 0xC

cpdef enum Request:
    REQ_MMU_FREE_OBSOLETE_ROOTS = 0x1
    REQ_MMU_SYNC = 0x2
    REQ_LOAD_MMU_PGD = 0x4
    REQ_TLB_FLUSH = 0x8
    REQ_TLB_FLUSH_CURRENT = 0x10
    REQ_TLB_FLUSH_GUEST = 0x20
    REQ_TRIPLE_FAULT = 0x40

cpdef enum GuestFormat:                      # which guest tables an MMU walks: the kernel's paging_tmpl.h instances
    FORMAT_NONE = 0                         # direct: no guest tables
    FORMAT_PT32 = 1
    FORMAT_PT64 = 2
    FORMAT_EPT = 3

cpdef enum PfRet:                            # RET_PF_* of Linux 6.1, and what our face adds
    RET_PF_CONTINUE = 0
    RET_PF_RETRY = 1
    RET_PF_EMULATE = 2
    RET_PF_INVALID = 3
    RET_PF_FIXED = 4
    RET_PF_SPURIOUS = 5
    RET_PF_INJECT = 6                       # the fault is the guest's: vcpu.exception is set

cpdef enum Errno:
    EINTR = 4
    EIO = 5
    ENOMEM = 12
    EFAULT = 14
    EINVAL = 22
    ENOSPC = 28
    ERANGE = 34

cpdef enum Bug:                             # what WARNs and BUGs guard, in the kernel and here
    BUG_OUT_OF_PAGES = 0                    # a shadow page was needed and the pool was empty
    BUG_OUT_OF_DESCS = 1
    BUG_RMAP_ENTRY_MISSING = 2              # an spte is not in the rmap it must be in
    BUG_FREE_ROOTED = 3                     # a page was freed while a root slot holds it
    BUG_FREE_VALID = 4
    BUG_LINK_PRESENT = 5                    # an entry was linked over a present one
    BUG_LINK_UNSYNC_CHILDREN = 6
    BUG_UNSYNC_UPPER_LEVEL = 7              # a page above level 1 was asked to go unsync
    BUG_UNSYNC_COUNT = 8
    BUG_PFN_CHANGED = 9                     # an spte's frame changed without a drop
    BUG_GFN_TRACK = 10                      # write-tracking count under- or overflow
    BUG_DISALLOW_LPAGE = 11
    BUG_PAE_ROOT_VALID = 12                 # a legacy PDPTE slot was in use at load
    BUG_SPECIAL_LEVEL = 13                  # a special chain does not end in a level-3 page
    BUG_FETCH_LEVEL = 14                    # the walk did not end at the goal level
    BUG_SYNC_ROLE = 15                      # an unsync page of another MMU's role was synced
    BUG_RESERVED_SPTE = 16                  # an spte has bits that the hardware reserves
    BUG_RMAP_GFN = 17                       # a direct page's entry maps a gfn that its index does not give
    BUG_INVALID_CHILD = 18                  # a child's role was derived from an invalid parent
    BUG_ROOT_LEFT = 19                      # a root survived an unload
    BUG_RSVD_MMIO_WALK = 20                 # reserved bits in a present spte, met while looking for an MMIO spte
    BUG_HUGE_DIRTY = 21                     # a writable huge spte in a slot that logs dirty pages
    BUG_ALIGNMENT = 22                      # a huge mapping whose gfn and frame are not aligned alike


cdef struct ListHead:
    ListHead *next
    ListHead *prev
ctypedef ListHead *ListHeadPtr

cdef struct PteListDesc:                    # pte_list_desc: up to 14 sptes of one rmap
    PteListDesc *more
    u64 spte_count
    spte_t *sptes[PTE_LIST_EXT]
ctypedef PteListDesc *PteListDescPtr

cdef struct ShadowPage:                     # struct kvm_mmu_page
    ListHead link                           # active_mmu_pages, or an invalid list; must stay first
    ListHead lpage_disallowed_link          # lpage_disallowed_mmu_pages
    ShadowPage *hash_next
    ShadowPage **hash_pprev
    spte_t *spt                             # 512 entries given to the hardware
    u64 *translation                        # shadowed_translation: gfn << 12 | access, only when not direct
    gfn_t gfn
    u64 parent_ptes                         # rmap head of the sptes that point here
    ShadowPage *index_next
    ShadowPage **index_pprev
    role_t role
    int root_count
    u32 unsync_children
    int write_flooding_count
    int owner                               # vcpu id of a special page, else -1
    u8 mmu_valid_gen
    u8 unsync
    u8 special                              # vCPU-local: not hashed, not listed, not accounted
    u8 live                                 # allocated (0: on the free list)
    u8 lpage_disallowed
    u8 nx_disallowed                        # made because a huge page would be executable
    u8 unchecked                            # ours: an MMIO mark in it became a writable leaf, whatever table lies there
    u64 unsync_child_bitmap[8]
    spte_t nothing                          # what an entry of `spt` holds in which there is nothing
ctypedef ShadowPage *ShadowPagePtr

cdef struct HashBucket:                     # of the kernel's mmu_page_hash, newest page first
    ShadowPage *first
    u64 pages                               # how many, zapped ones that are not yet freed included
ctypedef HashBucket *HashBucketPtr

cdef struct MemSlot:
    gfn_t base_gfn
    u64 npages                              # 0: unused
    u64 hva                                 # first host user page
    u32 flags
    int id
    int as_id
    u64 *rmap[3]                            # rmap heads of 4K, 2M, 1G mappings
    int *disallow_lpage[2]                  # of 2M, 1G
    u16 *gfn_write_track
    u64 *dirty_bitmap
    u64 meta_at                             # where the metadata lies in the VM's pool, bytes
    u64 meta_size
ctypedef MemSlot *MemSlotPtr

cdef struct RootInfo:
    u64 pgd
    hpa_t hpa
ctypedef RootInfo *RootInfoPtr

cdef struct KvmMmu:
    RootInfo root
    RootInfo prev_roots[PREV_ROOTS]
    role_t root_role
    role_t cpu_role
    u32 cpu_ext                             # extended role
    GuestFormat format
    int is_guest_mmu
    int is_nested_mmu
    spte_t *pae_root                        # backs a level-3 root: then below 4 GiB
    spte_t *pml4_root                       # bare roots only
    spte_t *pml5_root                       # bare roots only
    u64 pdptrs[4]
    u8 permissions[16]
    u32 pkru_mask
    RsvdBits guest_rsvd
    RsvdBits shadow_zero
ctypedef KvmMmu *KvmMmuPtr

cdef struct GuestException:                 # x86_exception: a #PF to deliver, or a nested fault for L1
    u8 pending
    u8 nested_page_fault
    u64 error_code
    u64 address
    u64 exit_qualification
ctypedef GuestException *GuestExceptionPtr

cdef struct VcpuStat:
    u64 pf_taken
    u64 pf_fixed
    u64 pf_emulate
    u64 pf_spurious
    u64 pf_fast
    u64 pf_mmio_spte_created
    u64 pf_guest
    u64 tlb_flush
    u64 invlpg

cdef struct VmStat:
    u64 mmu_shadow_zapped
    u64 mmu_pte_write
    u64 mmu_pde_zapped
    u64 mmu_flooded
    u64 mmu_recycled
    u64 mmu_cache_miss
    u64 mmu_unsync
    u64 pages_4k
    u64 pages_2m
    u64 pages_1g
    u64 nx_lpage_splits
    u64 max_mmu_rmap_size
    u64 max_mmu_page_hash_collisions
    u64 remote_tlb_flush
    u64 remote_tlb_flush_requests
    u64 special_allocated                   # ours: special pages made and freed
    u64 special_freed

cdef struct Rules:                          # what kernels do otherwise than Linux 6.1: face/kernels.py has the table
    u8 sync_keeps                           # an entry whose gfn and access are unchanged is left alone by a sync
    u8 sync_keeps_accessed                  # an entry that a sync makes anew has A
    u8 invlpg_syncs                         # INVLPG syncs its entry, instead of zapping it and mapping ahead of a fault
    u8 hides_root                           # a root outside memory is a table of nothing, instead of a triple fault
    u8 hides_pdpte                          # so is a present PDPTE outside memory
    u8 masks_root_gfn                       # of CR3 only bits 51-12 are the root's address
    u8 wp_needs_paging                      # CR0.WP means nothing to the MMU without paging
    u8 sregs_flush                          # KVM_SET_SREGS that resets the MMU flushes the guest's TLB
    u8 wide_error_code                      # bits 32 and 33 of an error code reach the fault path
    u8 ignores_self_change                  # a large page over its own tables is limited by what is shadowed alone
    u8 retries_zapped                       # L1's write to a shadowed table is tried again only if something was zapped
    u8 retries_tables                       # an instruction is done again, not emulated, only if a table was in its way
    u8 nx_marks_nonpaging                   # pages below nonpaging roots count as split for NX, too
    u8 nx_keeps_marked                      # a small table stops a huge page only if it was made for NX
    u8 smep_in_role                         # CR4.SMEP makes pages of its own whatever CR0.WP is
    u8 npt_role_plain                       # the roles of a shadow NPT have WP, and no SMEP or SMAP of L1's
    u8 dirties_writable                     # D comes with W also if the old leaf was writable
    u8 zaps_written_child                   # an emulated write zaps a nested child that it leaves without parents
    u8 short_mmio_gen                       # a mark's generation has 18 bits, not 19
    u8 unprotects_late                      # a fault in a delivery stops shadowing only what is in the way of a write
    u8 nonpresent_bit_63                    # an entry with nothing in it is bit 63 alone, not 0
    u8 lifts_no_ept                         # with CR0.WP=0 nothing is made writable in L1's EPT
    u8 moved_ept_bits                       # KVM's own bits of an EPT entry lie elsewhere
    u8 mmio_loads_walk                      # a load from where the last fault found no memory walks the guest's tables again
    u8 flushes_write_alone                  # a changed entry is flushed if it loses MMU-writable, not for A or D
    u8 ad_bits_always                       # an EPT entry has A and D also where the hardware does not use them
    u8 vmrun_drops_lma                      # L2's EFER.LMA without LME is none
    u8 vmrun_reloads_pdptes                 # VMRUN with nested paging makes L2's PDPTEs to be read again
    u8 zaps_slot_alone                      # a memslot that goes takes its own mappings and tables with it, not all
ctypedef Rules *RulesPtr

cdef struct SpteMasks:                      # the kernel's shadow_*_mask
    u64 present
    u64 user
    u64 nx
    u64 x
    u64 accessed
    u64 dirty
    u64 accessed_off                        # the same in an EPT entry that says that the hardware does not use them
    u64 dirty_off
    u64 host_writable
    u64 mmu_writable
    u64 acc_track
    u64 acc_track_shift                     # where the rights are saved that access tracking takes
    u64 ad_mask                             # how A/D bits are used
    u64 ad_disabled
    u64 memtype
    u64 me_value
    u64 mmio_value
    u64 mmio_mask
    u64 mmio_access
    u64 nonpresent                          # an entry with nothing in it: SHADOW_NONPRESENT_VALUE
    u64 mmio_gen_low_bits                   # how many bits of a mark's generation stand from bit 3 on
ctypedef SpteMasks *SpteMasksPtr

cdef struct NestedState:                    # what L1 gave VMRUN, and what #VMEXIT restores
    u8 guest_mode
    u8 npt
    u64 ncr3                                # L1's nested CR3 or EPTP
    u64 l1_cr0, l1_cr3, l1_cr4, l1_efer
ctypedef NestedState *NestedStatePtr

cdef struct Retry:                          # an instruction that is emulated because of a fault: fault/retry.py
    u64 rip, addr                           # which, and the address that faulted
    u64 last_rip, last_addr                 # the last that was tried again instead: last_retry_eip, last_retry_addr
    u8 user                                 # at privilege level 3
    u8 allowed                              # it may be tried again
    u8 met_table                            # the last fault was a write to a table that is shadowed

cdef struct KvmVcpu:
    Kvm *kvm
    int id
    int cpl
    int ac                                  # EFLAGS.AC of the guest
    int smm
    u64 cr0, cr2, cr3, cr4, efer, pkru
    u32 requests
    KvmMmu root_mmu
    KvmMmu guest_mmu
    KvmMmu nested_mmu
    KvmMmu *mmu
    KvmMmu *walk_mmu
    int pdptrs_available                    # nested paging: PDPTEs were read since the guest ran (VCPU_EXREG_PDPTR)
    GuestException exception
    NestedState nested
    int write_fault_to_shadow_pgtable
    Retry retry
    u64 mmio_gva, mmio_gfn, mmio_gen
    u32 mmio_access
    int flush_hw_all                        # what the hardware must drop before the next entry
    int flush_gva_count
    gva_t flush_gva[MAX_GVA_FLUSHES]
    VcpuStat stat
ctypedef KvmVcpu *KvmVcpuPtr

cdef struct RootOps:                        # what a design does about roots without a guest table: engine/roots/designs.py
    # Before mmu_lock: may read the guest's tables into `pdptrs`; not 0 gives the guest a triple fault. NULL: nothing to do.
    int (*prepare)(KvmVcpu *vcpu, u64 *pdptrs) noexcept nogil
    int (*load)(KvmVcpu *vcpu, gfn_t gfn, u64 *pdptrs) noexcept nogil
    void (*free)(Kvm *kvm, KvmMmu *mmu, ListHead *invalid) noexcept nogil
    # Only of bare roots, which are no shadow pages that the common code could walk and sync; else NULL.
    void (*create_tables)(KvmVcpu *vcpu) noexcept nogil
    void (*sync)(KvmVcpu *vcpu) noexcept nogil
    void (*walk_start)(KvmVcpu *vcpu, u64 addr, int *level, spte_t **table) noexcept nogil
ctypedef RootOps *RootOpsPtr

cdef struct Interleave:                     # one thing that happens elsewhere, at a named point of the fault path
    int point
    int event                               # InterleaveEvent
    int size
    gpa_t gpa
    u64 value

cdef struct EventRecord:
    u16 kind
    u16 vcpu
    u32 reserved
    u64 a[6]
ctypedef EventRecord *EventRecordPtr

cdef struct Kvm:
    # --- configuration, constant after the VM is made
    u64 arena_size
    int nvcpus
    RootOps root_ops
    int tdp                                 # tdp_enabled: L1 runs on direct tables
    int vmx                                 # Intel: EPT instead of NPT, no AMD reserved bits
    int ept                                 # SPTEs in EPT format
    int ept_ad, ept_exec_only
    int host_levels                         # 3, 4 or 5: levels of NPT/EPT and of the host's tables
    int maxphyaddr                          # the guest's
    int host_maxphyaddr
    int mmio_caching                        # enable_mmio_caching
    u64 cr4_reserved                        # bits that the guest's CPUID does not offer
    u64 efer_reserved
    int guest_1g                            # guest_can_use_gbpages
    int guest_amd                           # guest_cpuid_is_amd_or_hygon
    int max_huge_level
    int nx_huge_pages
    int eager_page_split                    # with a TDP MMU: huge pages are split when dirty logging begins
    Rules rules
    SpteMasks masks
    u64 low_frames, high_frames             # frames of the two zones
    u64 table_base                          # frame index of the first shadow-table frame
    u64 user_base, user_frames              # frame index and count of host user memory, spare frames included
    u64 nhva                                # pages of the host user mapping
    u64 npages_pool, ndesc
    # --- pointers into the arena
    u8 *frames                              # host physical memory: low zone, then high zone
    ShadowPage **frame_private              # page_private: frame -> sp
    ShadowPage *pages
    u64 *translations                       # one page of 512 for each sp
    spte_t *empty_table                     # what a page's table begins as
    PteListDesc *descs
    HashBucket *hash
    ShadowPage **index                      # where pages are looked up by gfn: pages/page_index.py
    u64 *hva_map                            # host user page -> its mapping: read by memslots.hva_entry
    u32 *user_free                          # FIFO ring of free user frames
    u8 *meta                                # memslot metadata
    u64 meta_size
    KvmVcpu *vcpus
    # --- state
    ListHead active_mmu_pages
    ListHead zapped_obsolete_pages
    ListHead lpage_disallowed_mmu_pages
    ListHead free_pages
    PteListDesc *free_descs
    u64 nfree_pages, nfree_descs
    u64 npages_carved, ndesc_carved         # how much of each pool was ever used; what lies behind is free and untouched
    u64 index_mask
    u64 meta_used                           # bytes of metadata below this were some slot's once
    u64 user_free_head, user_free_count
    u64 n_used_mmu_pages, n_max_mmu_pages, n_requested_mmu_pages
    u64 indirect_shadow_pages
    u64 nr_memslot_pages
    int manual_dirty_log_protect            # ManualProtect bits
    u64 memslot_gen[ADDRESS_SPACES]
    MemSlot slots[ADDRESS_SPACES][MAX_SLOTS]
    MemSlot *last_slot[ADDRESS_SPACES]      # of the last look-up
    int nslots[ADDRESS_SPACES]
    u64 mmu_invalidate_seq
    int mmu_invalidate_in_progress
    u64 mmu_invalidate_start, mmu_invalidate_end
    u8 mmu_valid_gen
    VmStat stat
    Interleave interleave
    u64 resched_after                       # pages to sync until another task wants the CPU; 0: none does
    u64 bugs                                # WARNs hit, one bit a kind (Bug): an engine fault, never the guest's
    # --- not state: where events go
    EventRecord *events                     # NULL: tracing is off
    u64 nevents, max_events, lost_events
ctypedef Kvm *KvmPtr


cdef inline u64 frame_index(Kvm *kvm, void *at) noexcept nogil:
    """Index of the host frame that holds the byte at `at`."""
    return <u64>(<u8 *>at - kvm.frames) >> PAGE_SHIFT


cdef inline pfn_t frame_pfn(Kvm *kvm, u64 index) noexcept nogil:
    """Host frame number of frame `index`: the low zone from 0, the high zone from 4 GiB."""
    return index if index < kvm.low_frames else (Hpa.HIGH_ZONE >> PAGE_SHIFT) + index - kvm.low_frames


cdef inline u8 *pfn_memory(Kvm *kvm, pfn_t pfn) noexcept nogil:
    """The bytes of host frame `pfn`."""
    if pfn < kvm.low_frames:
        return kvm.frames + (pfn << PAGE_SHIFT)
    return kvm.frames + ((pfn - (Hpa.HIGH_ZONE >> PAGE_SHIFT) + kvm.low_frames) << PAGE_SHIFT)


cdef inline hpa_t host_pa(Kvm *kvm, void *at) noexcept nogil:
    """Host physical address of a byte of host memory: the kernel's __pa()."""
    return (frame_pfn(kvm, frame_index(kvm, at)) << PAGE_SHIFT) + (<u64>at & (PAGE_SIZE - 1))


cdef inline ShadowPage *to_shadow_page(Kvm *kvm, hpa_t hpa) noexcept nogil:
    """The shadow page whose table lies at `hpa`: page_private of the frame, NULL for the tables of a bare root."""
    return kvm.frame_private[frame_index(kvm, pfn_memory(kvm, (hpa & Pte.ADDR) >> PAGE_SHIFT))]


cdef inline ShadowPage *sptep_to_sp(Kvm *kvm, spte_t *sptep) noexcept nogil:
    """The shadow page that holds this entry."""
    return kvm.frame_private[frame_index(kvm, sptep)]


cdef inline int spte_index(spte_t *sptep) noexcept nogil:
    """Index of an entry in its table."""
    return (<u64>sptep >> 3) & (ENTRIES - 1)


cdef inline hpa_t dummy_root(Kvm *kvm) noexcept nogil:
    """kvm_mmu_get_dummy_root: a page of zeroes that is no shadow page, the last one of the low zone."""
    return (kvm.low_frames - 1) << PAGE_SHIFT


cdef inline u64 pages_per_hpage(int level) noexcept nogil:
    """4K pages mapped by one entry of `level`: KVM_PAGES_PER_HPAGE."""
    return <u64>1 << (LEVEL_BITS * (level - 1))


cdef inline void warn(Kvm *kvm, Bug kind) noexcept nogil:
    """Record that something impossible happened: the kernel's WARN. The audit reports it."""
    kvm.bugs |= <u64>1 << <int>kind


cdef u64 carve(u64 *at, u64 count, u64 size, u64 align) noexcept nogil
cdef Kvm *create(Kvm *config) noexcept nogil
cdef void destroy(Kvm *kvm) noexcept nogil
cdef void list_init(ListHead *head) noexcept nogil
cdef void list_add(ListHead *entry, ListHead *head) noexcept nogil
cdef void list_add_tail(ListHead *entry, ListHead *head) noexcept nogil
cdef void list_del(ListHead *entry) noexcept nogil
