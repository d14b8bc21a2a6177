# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.memory.memslots cimport is_write_tracked
from shadowmmu.engine.pages.pages cimport first_with_gptes
from shadowmmu.engine.arena.state cimport Kvm, MemSlot, ShadowPage, gfn_t

cdef enum:
    PAGE_ARRAY_NR = 16                      # KVM_PAGE_ARRAY_NR: path entries collected by one walk

cdef struct PathEntry:
    ShadowPage *sp
    int index                               # in its parent; -1 for the top page

cdef struct PageVec:                        # kvm_mmu_pages: unsync pages with the paths that lead to them
    PathEntry page[PAGE_ARRAY_NR]
    int nr
ctypedef PageVec *PageVecPtr

cdef struct Parents:                        # mmu_page_path: the path of the page at hand
    ShadowPage *parent[5]
    int index[5]
ctypedef Parents *ParentsPtr

cdef int unsync_walk(Kvm *kvm, ShadowPage *sp, PageVec *vec) noexcept nogil
cdef int pages_first(PageVec *vec, Parents *parents) noexcept nogil
cdef int pages_next(PageVec *vec, Parents *parents, int i) noexcept nogil
cdef void clear_parents(Kvm *kvm, Parents *parents) noexcept nogil
cdef void unlink_unsync_page(Kvm *kvm, ShadowPage *sp) noexcept nogil


cdef int unsync_pages(Kvm *kvm, gfn_t gfn, bint can_unsync, bint prefetch) noexcept nogil


cdef inline int try_to_unsync_pages(Kvm *kvm, gfn_t gfn, bint can_unsync, bint prefetch) noexcept nogil:
    """mmu_try_to_unsync_pages: may `gfn` become writable? 0, or -1 when it must stay write-protected.

    A write-tracked gfn never (it holds an upper-level table). A shadowed level-1 table yes, its pages go
    unsync - but not while syncing (`can_unsync` False: the guest's flush is not complete yet), and not for a
    mere prefetch.
    """
    if is_write_tracked(kvm, gfn):
        return -1
    return 0 if first_with_gptes(kvm, gfn) == NULL else unsync_pages(kvm, gfn, can_unsync, prefetch)
