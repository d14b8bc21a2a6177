# SPDX-License-Identifier: GPL-2.0-only
"""The event grammar, version 1: what the engine emits, and what captures of a kernel are read into.

One struct an event, with the kernel's own names: tracepoints of `kvmmmu` and `kvm` (Linux 6.1), probes on entry
points of the MMU, and markers written by the guest and its VMM. The kernel's name is the struct's tag.
"""

from __future__ import annotations

import msgspec

from shadowmmu.trace.fields import Entry, Frame, Leaf, Role, Table, Word

GRAMMAR_VERSION = 1


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag=True):
    """What all events have."""

    vcpu: int = 0
    """The virtual CPU concerned; -1: none."""

    @property
    def name(self) -> str:
        """The kernel's name of the event."""
        return str(self.__struct_config__.tag)


# --- tracepoints of the MMU


class Walk(Event, frozen=True, tag="kvm_mmu_pagetable_walk"):
    addr: Word
    pferr: Word


class PagingElement(Event, frozen=True, tag="kvm_mmu_paging_element"):
    pte: Word
    level: Word


class SetAccessedBit(Event, frozen=True, tag="kvm_mmu_set_accessed_bit"):
    gpa: Word


class SetDirtyBit(Event, frozen=True, tag="kvm_mmu_set_dirty_bit"):
    gpa: Word


class WalkerError(Event, frozen=True, tag="kvm_mmu_walker_error"):
    pferr: Word


class PageEvent(Event, frozen=True, kw_only=True):
    """An event of one shadow page."""

    gfn: Word
    role: Role
    mmu_valid_gen: Word
    root_count: Word
    unsync: bool
    spt: int = 0
    """Where its table lies, if the source tells (the kernel does not)."""


class GetPage(PageEvent, frozen=True, kw_only=True, tag="kvm_mmu_get_page"):
    created: bool


class SyncPage(PageEvent, frozen=True, tag="kvm_mmu_sync_page"):
    pass


class UnsyncPage(PageEvent, frozen=True, tag="kvm_mmu_unsync_page"):
    pass


class PrepareZapPage(PageEvent, frozen=True, tag="kvm_mmu_prepare_zap_page"):
    pass


class MarkMmioSpte(Event, frozen=True, tag="mark_mmio_spte"):
    sptep: Entry
    gfn: Word
    access: Word
    gen: Word


class HandleMmioPageFault(Event, frozen=True, tag="handle_mmio_page_fault"):
    addr: Word
    gfn: Word
    access: Word


class FastPageFault(Event, frozen=True, tag="fast_page_fault"):
    cr2_or_gpa: Word
    error_code: Word
    sptep: Entry
    old_spte: Leaf
    new_spte: Leaf
    spurious: bool
    fixed: bool


class ZapAllFast(Event, frozen=True, tag="kvm_mmu_zap_all_fast"):
    mmu_valid_gen: Word
    mmu_used_pages: Word


class CheckMmioSpte(Event, frozen=True, tag="check_mmio_spte"):
    spte: Word
    kvm_gen: Word
    spte_gen: Word


class SetSpte(Event, frozen=True, tag="kvm_mmu_set_spte"):
    gfn: Word
    spte: Leaf
    sptep: Entry
    level: Word


class SpteRequested(Event, frozen=True, tag="kvm_mmu_spte_requested"):
    gfn: Word
    pfn: Frame
    level: Word


class SplitHugePage(Event, frozen=True, tag="kvm_mmu_split_huge_page"):
    gfn: Word
    spte: Leaf
    level: Word
    errno: Word


class TdpMmuSpteChanged(Event, frozen=True, tag="kvm_tdp_mmu_spte_changed"):
    gfn: Word
    old_spte: Leaf
    new_spte: Leaf
    level: Word
    as_id: Word


# --- entry points of the MMU, seen by probes


class MmuLoad(Event, frozen=True, tag="mmu_load"):
    pass


class MmuUnload(Event, frozen=True, tag="mmu_unload"):
    pass


class NewPgd(Event, frozen=True, tag="new_pgd"):
    pgd: Word


class LoadPgd(Event, frozen=True, tag="load_pgd"):
    root: Table
    level: Word


class FreeRoots(Event, frozen=True, tag="free_roots"):
    roots: Word


class ResetContext(Event, frozen=True, tag="reset_context"):
    pass


class SyncRoots(Event, frozen=True, tag="sync_roots"):
    pass


class SyncPrevRoots(Event, frozen=True, tag="sync_prev_roots"):
    pass


class Invlpg(Event, frozen=True, tag="invlpg"):
    gva: Word


class InvalidateGva(Event, frozen=True, tag="invalidate_gva"):
    gva: Word
    root: Table
    """All ones: in all roots; 0: in the current one, where the kernel tells no address."""


class PteWrite(Event, frozen=True, tag="pte_write"):
    gpa: Word
    bytes: Word
    val: Word
    """The stored value; the kernel's probe reads 8 bytes whatever `bytes` says."""


class UnprotectPage(Event, frozen=True, tag="unprotect_page"):
    gfn: Word


class UnprotectGfn(Event, frozen=True, tag="unprotect_gfn"):
    """As `unprotect_page`, since Linux 6.12: by an address, which the kernel then translates."""

    addr: Word


class MmuPageFault(Event, frozen=True, tag="mmu_page_fault"):
    addr: Word
    err: Word


class MmuPageFaultRet(Event, frozen=True, tag="mmu_page_fault_ret"):
    ret: Word


class ZapOldest(Event, frozen=True, tag="zap_oldest"):
    pass


class SlotRemoveWrite(Event, frozen=True, tag="slot_remove_write"):
    level: Word


class WriteProtectPtMasked(Event, frozen=True, tag="write_protect_pt_masked"):
    gfn_off: Word
    mask: Word


class ZapCollapsible(Event, frozen=True, tag="zap_collapsible"):
    pass


class GuestTlbFlush(Event, frozen=True, tag="guest_tlb_flush"):
    pass


# --- of this engine only


class InjectPageFault(Event, frozen=True, tag="inject_page_fault"):
    addr: Word
    pferr: Word
    nested: bool


class SpecialAlloc(Event, frozen=True, tag="special_alloc"):
    role: Role
    spt: Table


class SpecialFree(Event, frozen=True, tag="special_free"):
    role: Role
    spt: Table


# --- tracepoints of the vCPU loop


class Exit(Event, frozen=True, tag="kvm_exit"):
    exit_reason: Word
    guest_rip: Word
    info1: Word
    info2: Word


class VmEntry(Event, frozen=True, tag="kvm_entry"):
    rip: Word


class PageFault(Event, frozen=True, tag="kvm_page_fault"):
    guest_rip: Word
    fault_address: Word
    error_code: Word


class EmulateInsn(Event, frozen=True, tag="kvm_emulate_insn"):
    rip: Word
    csbase: Word
    len: Word
    insn: bytes
    flags: Word
    failed: Word


class InjException(Event, frozen=True, tag="kvm_inj_exception"):
    exception: Word
    has_error: Word
    error_code: Word
    reinjected: Word


class Msr(Event, frozen=True, tag="kvm_msr"):
    write: Word
    ecx: Word
    data: Word
    exception: Word


class Cr(Event, frozen=True, tag="kvm_cr"):
    rw: Word
    cr: Word
    val: Word


class MatchMmio(Event, frozen=True, tag="vcpu_match_mmio"):
    gva: Word
    gpa: Word
    write: Word
    gpa_match: Word


class Mmio(Event, frozen=True, tag="kvm_mmio"):
    type: Word
    """0: a read that user space must answer, 1: its answer, 2: a write."""
    len: Word
    gpa: Word
    val: Word


class NestedVmenter(Event, frozen=True, tag="kvm_nested_vmenter"):
    rip: Word
    vmcb: Word
    nested_rip: Word


class NestedVmenterFailed(Event, frozen=True, tag="kvm_nested_vmenter_failed"):
    msg: Word
    err: Word


class NestedVmexitInject(Event, frozen=True, tag="kvm_nested_vmexit_inject"):
    exit_code: Word
    exit_info1: Word
    exit_info2: Word


class NestedVmexit(Event, frozen=True, tag="kvm_nested_vmexit"):
    exit_reason: Word
    guest_rip: Word


# --- the rest


class Marker(Event, frozen=True, tag="print"):
    """A line that the VMM wrote into the trace: `G` for what the guest says, `H` for what the host does."""

    text: str


class Other(Event, frozen=True, tag="other"):
    """A tracepoint that this grammar has no struct for: kept, and written as it was."""

    ev: str
    fields: dict[str, int | str] = {}


AnyEvent = (
    Walk | PagingElement | SetAccessedBit | SetDirtyBit | WalkerError | GetPage | SyncPage | UnsyncPage | PrepareZapPage
    | MarkMmioSpte | HandleMmioPageFault | FastPageFault | ZapAllFast | CheckMmioSpte | SetSpte | SpteRequested
    | SplitHugePage | TdpMmuSpteChanged | MmuLoad | MmuUnload | NewPgd | LoadPgd | FreeRoots | ResetContext | SyncRoots
    | SyncPrevRoots | Invlpg | InvalidateGva | PteWrite | UnprotectPage | UnprotectGfn | MmuPageFault | MmuPageFaultRet | ZapOldest
    | SlotRemoveWrite | WriteProtectPtMasked | ZapCollapsible | GuestTlbFlush | InjectPageFault | SpecialAlloc
    | SpecialFree | Exit | VmEntry | PageFault | EmulateInsn | InjException | Msr | Cr | MatchMmio | Mmio
    | NestedVmenter | NestedVmenterFailed | NestedVmexitInject | NestedVmexit | Marker | Other
)  # fmt: skip
"""Any event, for decoding."""
