# SPDX-License-Identifier: GPL-2.0-only
"""Origins of what is told of roots: loaded, freed, switched, synced."""

from __future__ import annotations

from shadowmmu.trace import events as e
from shadowmmu.trace.origins.origin import Around, case
from shadowmmu.x86.vmcb import SvmExit

CURRENT = 1
"""KVM_MMU_ROOT_CURRENT; bit i + 1 is previous root i."""
ALL = (1 << 64) - 1
"""SVM's exit code of a shutdown (APM vol. 2 appendix C)."""
MOV_TO_CR = b"\x0f\x22"


def is_loading(at: Around) -> bool:
    """A root is being made, and has not been synced and loaded yet."""
    return isinstance(at.last(e.MmuLoad, e.LoadPgd, e.VmEntry, e.NestedVmexitInject), e.MmuLoad)


def is_reset_from_outside(at: Around) -> bool:
    """User space set the registers, or the CPU shut down and KVM resets it."""
    cause = at.last(e.Marker, e.Exit)
    return isinstance(cause, e.Marker) or (isinstance(cause, e.Exit) and cause.exit_reason == int(SvmExit.SHUTDOWN))


def control_register(at: Around) -> int | None:
    """The control register that the emulated instruction under way writes."""
    instruction = at.last(e.EmulateInsn, e.Exit, e.Marker)
    if not isinstance(instruction, e.EmulateInsn):
        return None
    place = instruction.insn.find(MOV_TO_CR)
    return instruction.insn[place + 2] >> 3 & 7 if 0 <= place < len(instruction.insn) - 2 else None


def is_register_write(at: Around) -> bool:
    """Nothing has happened since the instruction, the switch of guests or the VMM's call that writes registers."""
    cause = at.cause()
    if isinstance(cause, e.EmulateInsn):
        return control_register(at) is not None
    return isinstance(cause, e.NestedVmenter | e.NestedVmexitInject) or (isinstance(cause, e.Marker) and "set_sregs" in cause.text)


FREE = (
    case(
        e.FreeRoots, "of an MMU that starts over", "roots.free_roots", "kvm_mmu_unload",
        "A change of the paging mode drops the present root and all cached ones.",
        decider="roots.mmu_unload", ids="H9", when=lambda at: at.event.roots == ALL,
    ),
    case(
        e.FreeRoots, "at a switch of CR3", "roots.free_roots", "fast_pgd_switch",
        "A root of PDPTEs is not kept in prev_roots, and the least recently used cached root makes room.",
        decider="roots.fast_pgd_switch", ids="R9 R14 H1 I18",
        when=lambda at: at.event.roots == CURRENT and isinstance(at.cause(), e.NewPgd),
    ),
    case(
        e.FreeRoots, "other PDPTEs", "roots.free_roots", "load_pdptrs",
        "PAE paging: other PDPTEs than before mean another root, also if CR3 is the same.",
        decider="registers.reload_pdptrs", ids="R9", when=lambda at: at.event.roots == CURRENT and is_register_write(at),
    ),
    case(
        e.FreeRoots, "a PCID flushed", "roots.free_roots", "kvm_invalidate_pcid",
        "A CR3 write that flushes a PCID drops cached roots of that PCID: they would come back stale.",
        decider="registers.invalidate_pcid",
        when=lambda at: not at.event.roots & CURRENT and control_register(at) == 3 and not isinstance(at.cause(), e.SyncPrevRoots),
    ),
    case(
        e.FreeRoots, "unsync cached roots", "roots.free_roots", "kvm_mmu_sync_prev_roots",
        "At a full flush a cached root with something unsync below is freed, which is as good as syncing it.",
        decider="roots.sync_prev_roots", when=lambda at: isinstance(at.cause(), e.SyncPrevRoots),
    ),
    case(
        e.FreeRoots, "obsolete roots", "roots.free_roots", "kvm_mmu_free_obsolete_roots",
        "After a zap of everything, or of a root, each vCPU drops roots of the old generation; bare tables have none and go always.",
        decider="roots.free_obsolete_roots", ids="R11 R12 R14 H1",
    ),
)  # fmt: skip

LOAD = (
    case(
        e.MmuLoad, "", "roots.mmu_load", "kvm_mmu_load",
        "Before the guest runs, a vCPU without a root makes one; if it cannot, none is left.",
        ids="H17 H18",
    ),
    case(
        e.NewPgd, "VMRUN", "roots.new_pgd", "enter_svm_guest_mode",
        "L2 runs on the root of L1's nested tables, or without nested paging of its own CR3, with the roles taken first.",
        decider="nested.nested_enter", ids="H1",
        when=lambda at: isinstance(at.last(e.NestedVmenter, e.NestedVmexitInject, e.Exit, e.Marker), e.NestedVmenter),
    ),
    case(
        e.NewPgd, "#VMEXIT", "roots.new_pgd", "nested_svm_vmexit",
        "L1 gets its CR3 back, with the roles of its own registers taken first.",
        decider="nested.nested_exit", ids="H1",
        when=lambda at: isinstance(at.last(e.NestedVmenter, e.NestedVmexitInject, e.Exit, e.Marker), e.NestedVmexitInject),
    ),
    case(
        e.NewPgd, "a write of CR3", "roots.new_pgd", "kvm_set_cr3",
        "Another CR3 means another root: the present one is kept if it can be recognised again, and one is looked for in the cache.",
        decider="registers.set_cr3", ids="R9 I18",
    ),
    case(
        e.LoadPgd, "a new root", "roots.load_pgd", "kvm_mmu_load",
        "The root that was just made and synced is given to the hardware.",
        decider="roots.mmu_load", ids="R2 I11", when=is_loading,
    ),
    case(
        e.LoadPgd, "a cached root", "roots.load_pgd", "vcpu_enter_guest",
        "A root found in the cache, or new PDPTEs of a walk in software, are given to the hardware at the next entry.",
        decider="requests.serve", ids="I11",
    ),
)  # fmt: skip

SYNC = (
    case(
        e.SyncRoots, "of a new root", "roots.sync_roots", "kvm_mmu_load",
        "Loading a root is a flush of the guest's, so it is synced.",
        decider="roots.mmu_load", ids="R10", when=is_loading,
    ),
    case(
        e.SyncRoots, "asked for", "roots.sync_roots", "vcpu_enter_guest",
        "The guest has flushed its TLB, by CR3, CR4 or a switch between L1 and L2: before it runs its shadow tables agree with its own.",
        decider="requests.serve", ids="R10 I12",
    ),
    case(
        e.SyncPrevRoots, "", "roots.sync_prev_roots", "kvm_mmu_sync_prev_roots",
        "A full flush under shadow paging concerns cached roots too.",
        decider="requests.flush_guest",
    ),
    case(
        e.GuestTlbFlush, "", "requests.flush_guest", "kvm_vcpu_flush_tlb_guest",
        "All translations of the guest, global ones included, are flushed before it runs.",
    ),
)  # fmt: skip

RESET = (
    case(
        e.ResetContext, "a write of CR0", "roots.reset_context", "kvm_post_set_cr0",
        "Paging or WP changed: all roots go, and the MMU takes its new role.",
        decider="registers.set_cr0", when=lambda at: control_register(at) == 0,
    ),
    case(
        e.ResetContext, "a write of CR4", "roots.reset_context", "kvm_post_set_cr4",
        "A CR4 bit of the role changed: all roots go, and the MMU takes its new role.",
        decider="registers.cr4_flushes", when=lambda at: control_register(at) == 4,
    ),
    case(
        e.ResetContext, "registers set from outside", "roots.reset_context", "__set_sregs",
        "KVM_SET_SREGS, and INIT after a shutdown, start the MMU over if a register is another, and always with PAE paging.",
        decider="registers.set_sregs", when=is_reset_from_outside,
    ),
    case(
        e.ResetContext, "a write of EFER", "roots.reset_context", "set_efer",
        "LME or NXE changed: all roots go, and the MMU takes its new role.",
        decider="registers.set_efer",
    ),
)  # fmt: skip

SPECIAL = (
    case(
        e.SpecialAlloc, "a root", "special.alloc_special_page", "",
        "A root without a guest table: four PDPTEs, or a level above a 32-bit L1's nested table. Empty, unlisted, its vCPU's alone.",
        decider="roots.wants_tableless_root", ids="R1 R2 R3 R4 R6", when=is_loading,
    ),
    case(
        e.SpecialAlloc, "below a special root", "special.alloc_special_page", "",
        "At level 3 or more below a special root the page to link is special too, made when it is first needed.",
        decider="get_page.get_child_sp", ids="R1 R13",
    ),
    case(
        e.SpecialFree, "", "special.free_special_page", "",
        "Freed with its root, at once, from the top; its children are unlinked and stay in the hash.",
        decider="special.free_special_root", ids="R8 R14 R15 H2 H7",
    ),
)  # fmt: skip

CASES = (*FREE, *LOAD, *SYNC, *RESET, *SPECIAL)
