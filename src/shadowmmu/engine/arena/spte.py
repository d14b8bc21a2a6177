# SPDX-License-Identifier: GPL-2.0-only
"""Shadow entries as pure bits: how they are made and what they say. Names and masks are in ``spte.pxd``.

Every present entry has bit 11 (`Spte.MMU_PRESENT`), which no hardware format uses; a PDPTE of PAE paging
ignores bits 9-11, so the same test serves special level-3 pages.

Inline in the .pxd, since they run in every fault: `is_present`, `is_last`, `is_writable`, `is_large`, `spte_pfn`,
`is_mmio_spte`, `ad_enabled`, `accessed_mask`, `dirty_mask`, `is_access_track`, `is_accessed`, `is_dirty`,
`mark_for_access_track`, `mmio_gen`.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.role import Access
from cython.cimports.shadowmmu.engine.arena.state import KvmPtr, SpteMasksPtr, gfn_t, host_pa, p_spte, spte_t, u64
from cython.cimports.shadowmmu.x86.ept import Ept
from cython.cimports.shadowmmu.x86.pte import Pte


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def own_bits(kvm: KvmPtr, m: SpteMasksPtr) -> cython.void:
    """Where KVM notes what is its own business."""
    moved: cython.bint = kvm.rules.moved_ept_bits
    m.acc_track_shift = SpteShift.ACC_TRACK_SHIFT_MOVED if moved else SpteShift.ACC_TRACK_SHIFT
    ad_shift: cython.int = SpteShift.AD_SHIFT_MOVED if moved else SpteShift.AD_SHIFT
    m.ad_mask = cython.cast(u64, 3) << ad_shift
    m.ad_disabled = cython.cast(u64, 1) << ad_shift
    m.host_writable = Spte.HOST_WRITABLE
    m.mmu_writable = Spte.MMU_WRITABLE
    if kvm.ept:
        m.host_writable = Spte.EPT_HOST_WRITABLE_MOVED if moved else Spte.EPT_HOST_WRITABLE
        m.mmu_writable = Spte.EPT_MMU_WRITABLE_MOVED if moved else Spte.EPT_MMU_WRITABLE


def set_masks(kvm: KvmPtr) -> cython.void:
    """The kernel's shadow_*_mask values: the legacy format, or EPT's (kvm_mmu_set_ept_masks).

    In the kernel: kvm_mmu_set_mmio_spte_mask, kvm_mmu_set_me_spte_mask, kvm_mmu_reset_all_pte_masks.
    """
    m: SpteMasksPtr = cython.address(kvm.masks)
    m.nonpresent = Spte.NONPRESENT_BIT_63 if kvm.rules.nonpresent_bit_63 else 0
    m.mmio_gen_low_bits = 7 if kvm.rules.short_mmio_gen else 8
    own_bits(kvm, m)
    if kvm.ept:
        m.user = Ept.READ
        always: cython.bint = kvm.rules.ad_bits_always
        m.accessed = Ept.ACCESSED if kvm.ept_ad or always else 0
        m.dirty = Ept.DIRTY if kvm.ept_ad or always else 0
        m.accessed_off = Ept.ACCESSED if always else 0
        m.dirty_off = Ept.DIRTY if always else 0
        m.nx = 0
        m.x = Ept.EXEC
        m.present = (0 if kvm.ept_exec_only else Ept.READ) | m.nonpresent  # which suppresses #VE
        m.acc_track = Ept.RWX
        m.memtype = Ept.MEMTYPE_MASK | Ept.IGNORE_PAT
        # W and X without R is a misconfiguration on every CPU
        m.mmio_value = Ept.WRITE | Ept.EXEC if kvm.mmio_caching else 0
        m.mmio_mask = Ept.RWX | m.nonpresent
        m.mmio_access = 0
        return
    m.user = Pte.USER
    m.accessed = Pte.ACCESSED
    m.dirty = Pte.DIRTY
    m.nx = Pte.NX
    m.x = 0
    m.present = Pte.PRESENT
    m.acc_track = 0
    m.memtype = 0
    m.mmio_value = Spte.MMIO if kvm.mmio_caching and kvm.host_maxphyaddr < 52 else 0
    m.mmio_mask = m.mmio_value
    m.mmio_access = Access.WRITE | Access.USER


def restore_acc_track(kvm: KvmPtr, spte: spte_t) -> spte_t:
    """Give back the rights that `mark_for_access_track` saved."""
    saved: u64 = (spte >> kvm.masks.acc_track_shift) & (Ept.READ | Ept.EXEC)
    return (spte & ~(kvm.masks.acc_track | saved << kvm.masks.acc_track_shift)) | saved


def make_nonleaf_spte(kvm: KvmPtr, child_pt: p_spte, ad_disabled: cython.bint) -> spte_t:
    """An entry that leads to a lower table: all rights, the leaf decides."""
    m: SpteMasksPtr = cython.address(kvm.masks)
    spte: spte_t = Spte.MMU_PRESENT | host_pa(kvm, child_pt) | m.present | Pte.WRITABLE | m.user | m.x | m.me_value
    return spte | (m.ad_disabled if ad_disabled else m.accessed)


def make_pdpte(kvm: KvmPtr, child_pt: p_spte) -> spte_t:
    """A PDPTE of PAE paging: W, U, A and NX are reserved there (SDM vol. 3 table 4-8; H11). Bit 11 is set
    as in every entry, so that the common code takes it for one (R10)."""
    return Spte.MMU_PRESENT | host_pa(kvm, child_pt) | Pte.PRESENT | kvm.masks.me_value


def make_mmio_spte(kvm: KvmPtr, gfn: gfn_t, access: cython.int, gen: u64) -> spte_t:
    """generation_mmio_spte_mask: a mark that makes the hardware report a reserved bit (or misconfiguration): no memory at `gfn`."""
    low_bits: u64 = kvm.masks.mmio_gen_low_bits
    spte: spte_t = (gen & ((cython.cast(u64, 1) << low_bits) - 1)) << SpteShift.MMIO_GEN_LOW_SHIFT
    spte |= ((gen >> low_bits) << SpteShift.MMIO_GEN_HIGH_SHIFT) & Spte.MMIO_GEN_HIGH
    return spte | kvm.masks.mmio_value | (access & kvm.masks.mmio_access) | ((gfn << 12) & Spte.BASE_ADDR)


def mmio_spte_gen(kvm: KvmPtr, spte: spte_t) -> u64:
    """The memslot generation an MMIO mark was made under."""
    low_bits: u64 = kvm.masks.mmio_gen_low_bits
    low: u64 = (spte >> SpteShift.MMIO_GEN_LOW_SHIFT) & ((cython.cast(u64, 1) << low_bits) - 1)
    return low | ((spte & Spte.MMIO_GEN_HIGH) >> SpteShift.MMIO_GEN_HIGH_SHIFT) << low_bits


def mmio_spte_gfn(kvm: KvmPtr, spte: spte_t) -> gfn_t:
    """get_mmio_spte_gfn: the gfn that an MMIO mark was made for."""
    return (spte & Spte.BASE_ADDR & ~kvm.masks.mmio_mask) >> 12
