# SPDX-License-Identifier: GPL-2.0-only
# The kernel's kvm_mmu_page_role word, exact bit layout of Linux 5.18-6.1.

from shadowmmu.engine.arena.state cimport role_t

cpdef enum Role:
    LEVEL = 0xF
    HAS_4_BYTE_GPTE = 0x10                  # shadows a 2-level 32-bit guest table
    QUADRANT = 0x60                         # which part of a 4-byte-entry table
    DIRECT = 0x80                           # maps linear gfns, shadows no table
    ACCESS = 0x700                          # rights inherited from the levels above
    INVALID = 0x800                         # zapped, but a root slot still holds it
    EFER_NX = 0x1000
    CR0_WP = 0x2000
    SMEP_ANDNOT_WP = 0x4000
    SMAP_ANDNOT_WP = 0x8000
    AD_DISABLED = 0x10000                   # EPT without accessed/dirty bits
    GUEST_MODE = 0x20000                    # made for L2
    PASSTHROUGH = 0x40000                   # level 5 above a 4-level L1 NPT: shadows no table
    SMM = 0xFF000000                        # address space


cpdef enum RoleShift:
    QUADRANT_SHIFT = 5
    ACCESS_SHIFT = 8
    SMM_SHIFT = 24


cpdef enum Access:                          # ACC_*_MASK
    EXEC = 1
    WRITE = 2
    USER = 4                                # EPT: readable
    ALL = 7


cpdef enum Ext:                             # kvm_mmu_extended_role: what only the guest side needs
    VALID = 0x1
    EXECONLY = 0x2
    CR4_PSE = 0x4
    CR4_PKE = 0x8
    CR4_SMAP = 0x10
    CR4_SMEP = 0x20
    CR4_LA57 = 0x40
    EFER_LMA = 0x80
    HAS_PFERR_FETCH = 0x100


cdef inline int role_level(role_t role) noexcept nogil:
    return role & Role.LEVEL


cdef inline int role_access(role_t role) noexcept nogil:
    return (role & Role.ACCESS) >> RoleShift.ACCESS_SHIFT


cdef inline int role_as_id(role_t role) noexcept nogil:
    """Address space whose memslots the page's entries map: 0, or 1 for SMM."""
    return role >> RoleShift.SMM_SHIFT


cdef inline role_t set_level(role_t role, int level) noexcept nogil:
    return (role & ~<role_t>Role.LEVEL) | <role_t>level


cdef inline int has_gptes(role_t role) noexcept nogil:
    """sp_has_gptes: the page shadows a guest table, which therefore is write-protected or unsync."""
    return not role & (Role.DIRECT | Role.PASSTHROUGH)


cdef inline role_t child_role(role_t parent, int index, bint direct, int access) noexcept nogil:
    """kvm_mmu_child_role: the role of the page below entry `index` of a page with role `parent`.

    A 4-byte guest table has 1024 entries, a shadow page 512: a guest page table needs two shadow pages and the
    guest page directory four, told apart by the low bits of the parent's index. The kernel needs one bit
    (level 1); below a special level-3 page the level-2 child needs two (hazard H13).
    """
    cdef int level = role_level(parent) - 1
    cdef role_t role = parent & ~<role_t>(Role.LEVEL | Role.ACCESS | Role.DIRECT | Role.PASSTHROUGH | Role.QUADRANT | Role.INVALID)
    role |= <role_t>level | <role_t>access << RoleShift.ACCESS_SHIFT
    if direct:
        role |= Role.DIRECT
    if role & Role.HAS_4_BYTE_GPTE and level < 3:
        role |= (<role_t>index & ((1 << level) - 1)) << RoleShift.QUADRANT_SHIFT
    return role
