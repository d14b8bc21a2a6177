# SPDX-License-Identifier: GPL-2.0-only
"""Origins of what is told at the MMU's entry points: faults, writes, INVLPG, zaps of many pages, dirty logging."""

from __future__ import annotations

from shadowmmu.trace import events as e
from shadowmmu.trace.origins.origin import Around, case


def is_in_fault_or_load(at: Around) -> bool:
    """A page is needed: in a fault, or for a root."""
    return isinstance(at.last(e.MmuPageFault, e.MmuLoad, e.MmuPageFaultRet, e.VmEntry, e.Marker), e.MmuPageFault | e.MmuLoad)


FAULT = (
    case(
        e.MmuPageFault, "", "fault.mmu_page_fault", "kvm_mmu_page_fault",
        "A #PF exit, or a nested page fault: then the address is guest physical.",
    ),
    case(
        e.MmuPageFaultRet, "an error", "fault.mmu_page_fault", "kvm_mmu_page_fault",
        "A negative errno leaves the vCPU loop: the host cannot give the page.",
        decider="fault.faultin_pfn", when=lambda at: at.event.ret < 0,
    ),
    case(
        e.MmuPageFaultRet, "the guest goes on", "fault.mmu_page_fault", "kvm_mmu_page_fault",
        "Fixed, spurious, to be tried again, or emulated: the vCPU goes on in the kernel.",
        decider="fault.classify",
    ),
    case(
        e.InjectPageFault, "L1's tables", "fault.inject_page_fault", "kvm_inject_emulated_page_fault",
        "L1's nested tables caused it: it becomes a #VMEXIT.",
        when=lambda at: bool(at.event.nested),
    ),
    case(
        e.InjectPageFault, "the guest's own", "fault.inject_page_fault", "kvm_inject_emulated_page_fault",
        "The guest's own tables do not allow the access: it gets the #PF that a CPU would raise.",
        ids="R7",
    ),
    case(
        e.InvalidateGva, "INVLPG", "invlpg.invalidate_gva", "kvm_mmu_invlpg",
        "INVLPG drops the translation in the current root and in every cached one.",
        decider="invlpg.kvm_invlpg", ids="I12", when=lambda at: isinstance(at.cause(), e.Invlpg),
    ),
    case(
        e.InvalidateGva, "before a #PF", "invlpg.invalidate_gva", "kvm_inject_emulated_page_fault",
        "A #PF with P set drops the faulting translation in the present root, as a CPU does.",
        decider="fault.inject_page_fault", ids="I12",
    ),
    case(
        e.Invlpg, "", "invlpg.kvm_invlpg", "kvm_mmu_invlpg",
        "The guest executed INVLPG.",
    ),
)  # fmt: skip

WRITES = (
    case(
        e.PteWrite, "", "tracking.write_emulated", "kvm_mmu_pte_write",
        "The emulator stored to guest memory; shadows of a table that lies there follow.",
    ),
    case(
        e.UnprotectPage, "a nested write to L1's table", "zap.unprotect_page", "kvm_mmu_page_fault",
        "L2's walk writes a table that L1 shadows: instead of emulating, the table is shadowed no longer.",
        decider="fault.classify", when=lambda at: isinstance(at.cause(), e.MmuPageFault),
    ),
    case(
        e.UnprotectPage, "an instruction to be done again", "zap.unprotect_page", "retry_instruction",
        "An instruction that needs no emulation wrote to a shadowed page: it is shadowed no longer, and the guest tries again.",
        decider="vm.unprotect_page",
    ),
)  # fmt: skip

MANY = (
    case(
        e.ZapAllFast, "", "zap.zap_all_fast", "kvm_mmu_zap_all_fast",
        "A memslot goes or moves: the generation is toggled, every vCPU is asked to drop its roots, and the old pages are zapped.",
        decider="slot_update.invalidate_slot", ids="R4 R11 R12 I4",
    ),
    case(
        e.ZapOldest, "pages are needed", "zap.zap_oldest_pages", "make_mmu_pages_available",
        "Fewer than 5 pages are left below the limit: the oldest go until there are 25.",
        decider="zap.recycle_pages", ids="R6 H15", when=is_in_fault_or_load,
    ),
    case(
        e.ZapOldest, "a lower limit", "zap.zap_oldest_pages", "kvm_mmu_change_mmu_pages",
        "User space, or less memory, has lowered the limit: the oldest pages go until it holds.",
        decider="zap.change_mmu_pages", ids="R6",
    ),
    case(
        e.SlotRemoveWrite, "", "dirty.slot_remove_write_access", "kvm_mmu_slot_remove_write_access",
        "Dirty logging is turned on: W goes from every entry of the slot, MMU-writable stays.",
        decider="slot_update.slot_set_flags", ids="I9 I15",
    ),
    case(
        e.WriteProtectPtMasked, "", "dirty.write_protect_pt_masked", "kvm_mmu_write_protect_pt_masked",
        "Pages whose bits user space has read from the log are protected again, 64 at a time.",
        decider="dirty.get_dirty_log", ids="I15",
    ),
    case(
        e.ZapCollapsible, "", "dirty.zap_collapsible_sptes", "kvm_mmu_zap_collapsible_sptes",
        "Dirty logging is over: small entries of direct pages go where a large one is possible.",
        decider="slot_update.slot_set_flags",
    ),
    case(
        e.MmuUnload, "", "", "kvm_mmu_destroy",
        "The vCPU is closed, which a capture's end is not followed to.",
    ),
)  # fmt: skip

CASES = (*FAULT, *WRITES, *MANY)
