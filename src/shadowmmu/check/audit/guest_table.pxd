# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport GuestFormat, Kvm, ShadowPage, gfn_t, gpa_t, u8, u64

cdef struct GuestTable:                     # the table that a page shadows, as memory has it now
    u8 *memory                              # NULL: it is in no memory
    gpa_t address
    GuestFormat format
    bint readonly                           # its slot is: A and D count as set there
ctypedef GuestTable *GuestTablePtr

cdef void find_guest_table(Kvm *kvm, ShadowPage *sp, GuestTable *table) noexcept
cdef u64 guest_entry(GuestTable *table, ShadowPage *sp, int index) noexcept
cdef gpa_t guest_entry_address(GuestTable *table, ShadowPage *sp, int index) noexcept
cdef gfn_t table_named(GuestTable *table, u64 gpte) noexcept
cdef gfn_t page_named(GuestTable *table, ShadowPage *sp, int index, u64 gpte) noexcept
cdef bint maps_page(GuestTable *table, ShadowPage *sp, u64 gpte) noexcept
cdef bint is_there(GuestTable *table, u64 gpte) noexcept
cdef int rights_given(GuestTable *table, u64 gpte) noexcept
cdef int page_rights(GuestTable *table, ShadowPage *sp, u64 gpte) noexcept
