# SPDX-License-Identifier: GPL-2.0-only
# Shadow entries: the bits KVM puts in them. Sources: arch/x86/kvm/mmu/spte.h of Linux 6.1.

from shadowmmu.engine.arena.state cimport Gen, Kvm, gfn_t, pfn_t, role_t, spte_t, u64
from shadowmmu.x86.ept cimport Ept
from shadowmmu.x86.pte cimport Pte

cpdef enum Spte:
    MMU_PRESENT = 0x800                     # bit 11: KVM's own present bit, ignored by every entry format
    HOST_WRITABLE = 0x200                   # bit 9 (EPT: 57, later 53): the host lets us write the frame
    MMU_WRITABLE = 0x400                    # bit 10 (EPT: 58, later 55): nothing but dirty logging forbids W
    EPT_HOST_WRITABLE = 0x200000000000000
    EPT_MMU_WRITABLE = 0x400000000000000
    EPT_HOST_WRITABLE_MOVED = 0x20000000000000
    EPT_MMU_WRITABLE_MOVED = 0x80000000000000
    BASE_ADDR = 0x000FFFFFFFFFF000
    NONPRESENT_BIT_63 = 0x8000000000000000  # ignored where nothing is present; in EPT it suppresses #VE
    MMIO = 0x8000000000001                  # bit 51 and P: a reserved-bit fault on every CPU with a narrower bus
    MMIO_GEN_HIGH = 0x7FF0000000000000      # the upper 11 bits of the generation in entry bits 52-62


cpdef enum SpteShift:
    ACC_TRACK_SHIFT = 54                    # EPT without A bits: R and X are saved at bits 54 and 56
    ACC_TRACK_SHIFT_MOVED = 52
    AD_SHIFT = 52                           # two bits: how A/D bits are used; 1: not at all
    AD_SHIFT_MOVED = 60
    MMIO_GEN_LOW_SHIFT = 3
    MMIO_GEN_HIGH_SHIFT = 52


cdef inline bint is_present(spte_t spte) noexcept nogil:
    """is_shadow_present_pte: KVM made this entry (an MMIO mark is not present)."""
    return (spte & Spte.MMU_PRESENT) != 0


cdef inline bint is_last(spte_t spte, int level) noexcept nogil:
    """is_last_spte: the entry maps memory instead of a lower table."""
    return level == 1 or spte & Pte.PAGE_SIZE


cdef inline bint is_writable(spte_t spte) noexcept nogil:
    return (spte & Pte.WRITABLE) != 0


cdef inline bint is_large(spte_t spte) noexcept nogil:
    return (spte & Pte.PAGE_SIZE) != 0


cdef inline pfn_t spte_pfn(spte_t spte) noexcept nogil:
    return (spte & Spte.BASE_ADDR) >> 12


cdef inline bint is_mmio_spte(Kvm *kvm, spte_t spte) noexcept nogil:
    return (spte & kvm.masks.mmio_mask) == kvm.masks.mmio_value and kvm.masks.mmio_value != 0


cdef inline u64 mmio_gen(Kvm *kvm, int as_id) noexcept nogil:
    """The generation of an address space's memslots, as far as an entry can hold it."""
    return kvm.memslot_gen[as_id] & ((<u64>1 << (kvm.masks.mmio_gen_low_bits + Gen.MMIO_GEN_HIGH_BITS)) - 1)


cdef inline bint ad_enabled(Kvm *kvm, spte_t spte) noexcept nogil:
    return (spte & kvm.masks.ad_mask) != kvm.masks.ad_disabled


cdef inline u64 accessed_mask(Kvm *kvm, spte_t spte) noexcept nogil:
    return kvm.masks.accessed if ad_enabled(kvm, spte) else kvm.masks.accessed_off


cdef inline u64 dirty_mask(Kvm *kvm, spte_t spte) noexcept nogil:
    return kvm.masks.dirty if ad_enabled(kvm, spte) else kvm.masks.dirty_off


cdef spte_t restore_acc_track(Kvm *kvm, spte_t spte) noexcept nogil
cdef spte_t make_nonleaf_spte(Kvm *kvm, spte_t *child_pt, bint ad_disabled) noexcept nogil
cdef spte_t make_pdpte(Kvm *kvm, spte_t *child_pt) noexcept nogil
cdef spte_t make_mmio_spte(Kvm *kvm, gfn_t gfn, int access, u64 gen) noexcept nogil
cdef u64 mmio_spte_gen(Kvm *kvm, spte_t spte) noexcept nogil
cdef gfn_t mmio_spte_gfn(Kvm *kvm, spte_t spte) noexcept nogil
cdef void set_masks(Kvm *kvm) noexcept nogil


cdef inline bint is_access_track(Kvm *kvm, spte_t spte) noexcept nogil:
    """The entry lost its rights only so that the next access faults (no A bit in the hardware)."""
    return not ad_enabled(kvm, spte) and (spte & kvm.masks.acc_track) == 0


cdef inline bint is_accessed(Kvm *kvm, spte_t spte) noexcept nogil:
    cdef u64 mask = accessed_mask(kvm, spte)
    return (spte & mask) != 0 if mask else not is_access_track(kvm, spte)


cdef inline bint is_dirty(Kvm *kvm, spte_t spte) noexcept nogil:
    cdef u64 mask = dirty_mask(kvm, spte)
    return (spte & mask) != 0 if mask else is_writable(spte)


cdef inline spte_t mark_for_access_track(Kvm *kvm, spte_t spte) noexcept nogil:
    """mark_spte_for_access_track: clear the A bit, or where the hardware has none save R and X and take all rights away."""
    if ad_enabled(kvm, spte) and kvm.masks.accessed:
        return spte & ~kvm.masks.accessed
    if is_access_track(kvm, spte) or not kvm.masks.acc_track:
        return spte
    spte |= (spte & (Ept.READ | Ept.EXEC)) << kvm.masks.acc_track_shift
    return spte & ~(kvm.masks.acc_track | kvm.masks.accessed_off)
