from shadowmmu.engine.state cimport GuestFormat, GuestException, KvmMmu, KvmVcpu, gfn_t, gpa_t, gva_t, u64, u8

cdef struct GuestWalker:                    # struct guest_walker; arrays are indexed by level - 1
    int level                               # of the leaf
    int max_level                           # of the first table read
    gfn_t table_gfn[5]
    gpa_t pte_gpa[5]
    u64 ptes[5]
    gpa_t real_gpa[5]                       # of the entry; differs from pte_gpa for L2's own tables
    int pt_access[5]                        # rights inherited from above this table
    int pte_access                          # rights of the whole walk
    gfn_t gfn
    u64 prefetch_ptes[8]
    GuestException fault


cdef inline int entry_size(GuestFormat format) noexcept nogil:
    """Bytes of a guest entry."""
    return 4 if format == GuestFormat.FORMAT_PT32 else 8


cdef bint walk_addr(KvmVcpu *vcpu, KvmMmu *mmu, GuestWalker *walker, gva_t addr, u64 access) noexcept nogil
cdef u64 permission_fault(KvmVcpu *vcpu, KvmMmu *mmu, int pte_access, int pkey, u64 access) noexcept nogil
cdef bint gpte_changed(KvmVcpu *vcpu, KvmMmu *mmu, GuestWalker *walker, int level) noexcept nogil
cdef bint gpte_present(GuestFormat format, u64 gpte) noexcept nogil
cdef int gpte_access(GuestFormat format, u64 gpte) noexcept nogil
cdef gfn_t gpte_gfn(GuestFormat format, u64 gpte) noexcept nogil
cdef int protect_clean_gpte(KvmMmu *mmu, int access, u64 gpte) noexcept nogil
cdef bint have_ad(KvmMmu *mmu) noexcept nogil
cdef u64 accessed_bit(GuestFormat format) noexcept nogil
cdef bint read_gpte(KvmVcpu *vcpu, GuestFormat format, gpa_t gpa, u64 *gpte) noexcept nogil
cdef gpa_t gva_to_gpa(KvmVcpu *vcpu, KvmMmu *mmu, gva_t gva, u64 access, GuestException *fault) noexcept nogil
cdef gpa_t translate_gpa(KvmVcpu *vcpu, KvmMmu *mmu, gpa_t gpa, u64 access, GuestException *fault) noexcept nogil
