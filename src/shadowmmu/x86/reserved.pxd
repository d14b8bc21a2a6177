# SPDX-License-Identifier: GPL-2.0-only
cpdef enum GateBits:                        # which of the CPU's features change what is reserved
    NX_ENABLED = 0x1
    HUGE_1G = 0x2
    PSE_ENABLED = 0x4
    PSE36 = 0x8
    AMD = 0x10


cdef struct RsvdBits:
    unsigned long long mask[2][5]           # [bit 7 of the entry][level - 1]
    unsigned long long bad_mt_xwr           # EPT: bad values of the low six bits, one bit each
ctypedef RsvdBits *RsvdBitsPtr


cdef inline bint is_rsvd(RsvdBits *rsvd, unsigned long long entry, int level) noexcept nogil:
    """is_bad_mt_xwr, is_rsvd_bits_set: the entry has a bit, or a memory type and rights, that its format reserves at this level."""
    return (entry & rsvd.mask[(entry >> 7) & 1][level - 1]) != 0 or (rsvd.bad_mt_xwr >> (entry & 0x3F)) & 1


cdef unsigned long long rsvd_bits(int low, int high) noexcept nogil
cdef void legacy_rsvd_bits(RsvdBits *rsvd, int levels, int maxphyaddr, int gates) noexcept nogil
cdef void ept_rsvd_bits(RsvdBits *rsvd, int maxphyaddr, int huge_level, bint exec_only) noexcept nogil
