# SPDX-License-Identifier: GPL-2.0-only
from shadowmmu.engine.arena.state cimport Kvm, ShadowPage, gfn_t, u64


cdef inline u64 hash_gfn(gfn_t gfn) noexcept nogil:
    """hash_64, of which the kernel takes the upper 12 bits."""
    return gfn * <u64>0x61C8864680B583EBULL


cdef inline u64 hash_bucket(gfn_t gfn) noexcept nogil:
    """kvm_page_table_hashfn: hash_64(gfn, 12)."""
    return hash_gfn(gfn) >> 52


cdef inline u64 index_number(Kvm *kvm, gfn_t gfn) noexcept nogil:
    """Number of the bucket of `gfn` when all are there that the mask can name."""
    return (hash_gfn(gfn) >> 32) & kvm.index_mask


cdef inline ShadowPage **index_bucket(Kvm *kvm, gfn_t gfn) noexcept nogil:
    """The index's bucket of `gfn`: one that is not there yet has not been split from the one without its highest bit."""
    cdef u64 number = index_number(kvm, gfn)
    return &kvm.index[number if number < kvm.npages_carved else number & (kvm.index_mask >> 1)]


cdef void hash_insert(Kvm *kvm, ShadowPage *sp) noexcept nogil
cdef void hash_remove(Kvm *kvm, ShadowPage *sp) noexcept nogil
cdef void grow_index(Kvm *kvm) noexcept nogil
