# SPDX-License-Identifier: GPL-2.0-only
"""Large pages: how big a mapping may be.

Inline in the .pxd, since it runs in every fault: `hugepage_adjust`.
"""

import cython
from cython.cimports.shadowmmu.engine.arena.spte import is_large, is_present
from cython.cimports.shadowmmu.engine.arena.state import (
    Bug,
    HvaFlag,
    KvmPtr,
    MemSlotPtr,
    SlotFlag,
    gfn_t,
    pages_per_hpage,
    spte_t,
    to_shadow_page,
    u64,
    warn,
)
from cython.cimports.shadowmmu.engine.entries.leaf import PageFaultPtr
from cython.cimports.shadowmmu.engine.memory.memslots import host_mapping, lpage_info


def max_mapping_level(kvm: KvmPtr, slot: MemSlotPtr, gfn: gfn_t, max_level: cython.int) -> cython.int:
    """The largest level (1-3) that hardware, slot, shadowed tables below it and the host's own mapping allow.

    In the kernel: host_pfn_mapping_level, kvm_mmu_max_mapping_level.
    """
    level: cython.int = max_level if max_level < kvm.max_huge_level else kvm.max_huge_level
    while level > 1 and lpage_info(slot, gfn, level)[0]:
        level -= 1
    if level == 1:
        return 1
    host: cython.int = (host_mapping(kvm, slot, gfn) & HvaFlag.HVA_LEVEL_MASK) >> HvaFlag.HVA_LEVEL_SHIFT
    return host if host < level else level


def choose_hugepage(kvm: KvmPtr, fault: PageFaultPtr) -> cython.void:
    """kvm_mmu_hugepage_adjust: choose the goal level and round the frame to it.

    While the slot logs dirty pages only 4K is mapped, so that each write is seen.
    """
    if fault.slot.flags & SlotFlag.SLOT_LOG_DIRTY:
        return
    fault.req_level = max_mapping_level(kvm, fault.slot, fault.gfn, fault.max_level)
    if fault.req_level == 1 or fault.huge_page_disallowed:
        return
    mask: u64 = pages_per_hpage(fault.req_level) - 1
    if (fault.gfn & mask) != (fault.pfn & mask):
        warn(kvm, Bug.BUG_ALIGNMENT)
        return
    fault.goal_level = fault.req_level
    fault.pfn &= ~mask


def disallowed_hugepage_adjust(kvm: KvmPtr, fault: PageFaultPtr, spte: spte_t, level: cython.int) -> cython.void:
    """A small table stands where a huge page was the goal (it was split for executability): keep it, go one deeper."""
    if level > 1 and level == fault.goal_level and is_present(spte) and not is_large(spte):
        if kvm.rules.nx_keeps_marked and not to_shadow_page(kvm, spte).nx_disallowed:
            return
        mask: u64 = pages_per_hpage(level) - pages_per_hpage(level - 1)
        fault.pfn |= fault.gfn & mask
        fault.goal_level -= 1
