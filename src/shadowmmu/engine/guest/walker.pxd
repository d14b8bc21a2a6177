# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.memory.guest_memory cimport guest_bytes
from shadowmmu.engine.arena.role cimport Access, Role
from shadowmmu.engine.arena.state cimport PAGE_SHIFT, GuestException, GuestFormat, KvmMmu, KvmVcpu, gfn_t, gpa_t, gva_t, u32, u64, u8
from shadowmmu.x86.ept cimport Ept
from shadowmmu.x86.pte cimport Pte

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
ctypedef GuestWalker *GuestWalkerPtr

cpdef enum Walk:
    WALK_MAPPED
    WALK_FAULT                              # `GuestWalker.fault` says which
    WALK_AGAIN                              # an entry changed while A/D bits were set

cpdef enum TableRead:
    READ_DONE
    READ_NO_MEMORY
    READ_NESTED_FAULT                       # L1's tables do not let L2's table be read

cpdef enum Stored:
    STORE_DONE
    STORE_CHANGED                           # the entry is another by now
    STORE_HOST_READONLY                     # the host has made the page read-only: the guest gets a fault
    STORE_READONLY_SLOT                     # left alone


cdef inline int entry_size(GuestFormat format) noexcept nogil:
    """Bytes of a guest entry."""
    return 4 if format == GuestFormat.FORMAT_PT32 else 8


cdef bint walk_addr(KvmVcpu *vcpu, KvmMmu *mmu, GuestWalker *walker, gva_t addr, u64 access) noexcept nogil
cdef u64 permission_fault(KvmVcpu *vcpu, KvmMmu *mmu, int pte_access, int pkey, u64 access) noexcept nogil
cdef bint read_gpte(KvmVcpu *vcpu, GuestFormat format, gpa_t gpa, u64 *gpte) noexcept nogil
cdef gpa_t gva_to_gpa(KvmVcpu *vcpu, KvmMmu *mmu, gva_t gva, u64 access, GuestException *fault) noexcept nogil
cdef bint load_pdptrs(KvmVcpu *vcpu, u64 cr3) noexcept nogil
cdef gpa_t translate_gpa(KvmVcpu *vcpu, KvmMmu *mmu, gpa_t gpa, u64 access, GuestException *fault) noexcept nogil


cdef inline bint gpte_present(GuestFormat format, u64 gpte) noexcept nogil:
    """is_present_gpte: any right for EPT, else bit 0."""
    if format == GuestFormat.FORMAT_EPT:
        return (gpte & Ept.RWX) != 0
    return (gpte & Pte.PRESENT) != 0


cdef inline int gpte_access(GuestFormat format, u64 gpte) noexcept nogil:
    """The rights an entry gives, as Access bits. EPT: USER means readable."""
    if format == GuestFormat.FORMAT_EPT:
        return (Access.WRITE if gpte & Ept.WRITE else 0) | (Access.EXEC if gpte & Ept.EXEC else 0) | (Access.USER if gpte & Ept.READ else 0)
    cdef int access = gpte & (Pte.WRITABLE | Pte.USER)
    # Without NX in the format, or with NX clear, the page is executable.
    if format == GuestFormat.FORMAT_PT32 or not gpte & Pte.NX:
        access |= Access.EXEC
    return access


cdef inline gfn_t gpte_gfn(GuestFormat format, u64 gpte) noexcept nogil:
    """The address field, in frames."""
    return (gpte & (Pte.ADDR32 if format == GuestFormat.FORMAT_PT32 else Pte.ADDR)) >> PAGE_SHIFT


cdef inline bint have_ad(KvmMmu *mmu) noexcept nogil:
    """The guest's tables have A/D bits: always, but for EPT without EPTP bit 6."""
    return not mmu.cpu_role & Role.AD_DISABLED


cdef inline u64 accessed_bit(GuestFormat format) noexcept nogil:
    if format == GuestFormat.FORMAT_EPT:
        return Ept.ACCESSED
    return Pte.ACCESSED


cdef inline u64 dirty_bit(GuestFormat format) noexcept nogil:
    if format == GuestFormat.FORMAT_EPT:
        return Ept.DIRTY
    return Pte.DIRTY


cdef inline int protect_clean_gpte(KvmMmu *mmu, int access, u64 gpte) noexcept nogil:
    """A clean page is mapped read-only, so that the first write faults and D can be set."""
    if not have_ad(mmu) or gpte & dirty_bit(mmu.format):
        return access
    return access & ~<int>Access.WRITE


cdef inline u64 read_entry(GuestFormat format, u8 *at) noexcept nogil:
    if format == GuestFormat.FORMAT_PT32:
        return (<u32 *>at)[0]
    return (<u64 *>at)[0]


cdef bint group_changed(KvmVcpu *vcpu, KvmMmu *mmu, GuestWalker *walker) noexcept nogil


cdef inline bint gpte_changed(KvmVcpu *vcpu, KvmMmu *mmu, GuestWalker *walker, int level) noexcept nogil:
    """The entry of `level` is no longer what the walk read. At level 1 its block of 8 is read, for prefetching."""
    cdef u8 *at
    if level == 1:
        return group_changed(vcpu, mmu, walker)
    at = guest_bytes(vcpu.kvm, vcpu.smm, walker.pte_gpa[level - 1], False)
    return at == NULL or read_entry(mmu.format, at) != walker.ptes[level - 1]
