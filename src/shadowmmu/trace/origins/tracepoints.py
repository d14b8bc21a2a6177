# SPDX-License-Identifier: GPL-2.0-only
"""Origins where a trace has the kernel's tracepoints alone, without probes on the MMU's entry points: some causes it does not tell."""

from __future__ import annotations

from shadowmmu.engine.arena.role import Role
from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.origins import origin_of
from shadowmmu.trace.origins.origin import Around, Origin

_INVALID = int(Role.INVALID)
ZAP = Origin(
    "kvm_mmu_prepare_zap_page", "the trace does not tell by what", "", "", "kvm_mmu_prepare_zap_page",
    "By a store into its table (kvm_mmu_pte_write), a fault that unprotects it, its parent's end, recycling, or a memslot's change.",
)  # fmt: skip
STORED = Origin(
    "kvm_mmu_prepare_zap_page", "the emulator stored to memory", "", "", "kvm_mmu_pte_write",
    "An instruction was emulated just before: its store hit the page's table, misaligned or as the third in a row; or it was unprotected.",
)  # fmt: skip
SYNC = Origin(
    "kvm_mmu_sync_page", "a flush, or a table that is linked", "", "", "mmu_sync_children",
    "Every unsync page below a root, or below a page that is to be linked, is write-protected and made to agree with its table.",
)  # fmt: skip
ROOT = Origin(
    "kvm_mmu_get_page", "a new root", "", "", "kvm_mmu_load",
    "No fault is under way: before the guest runs, its vCPU makes a root, and an MMU of PDPTEs the four level-2 pages below it.",
)  # fmt: skip
WALK = Origin(
    "kvm_mmu_pagetable_walk", "the trace does not tell for what", "", "", "FNAME(walk_addr_generic)",
    "By a fault of an MMU that shadows guest tables, or by the emulator: without kvm_page_fault and kvm_exit both look alike.",
)  # fmt: skip
SET = Origin(
    "kvm_mmu_set_spte", "the trace does not tell for what", "", "", "mmu_set_spte",
    "Of a fault, prefetched beside one, or of INVLPG: without kvm_mmu_spte_requested they look alike.",
)  # fmt: skip
SET_OF_FAULT = Origin(
    "kvm_mmu_set_spte", "of a fault, the trace does not tell of which MMU", "", "", "mmu_set_spte",
    "The entry that was requested. Without a walk or kvm_page_fault before it, one of shadow paging and one of nested paging look alike.",
)  # fmt: skip
TDP = Origin(
    "kvm_mmu_set_spte", "of the TDP MMU", "", "", "tdp_mmu_map_handle_target_level",
    "The fault's entry in tables of nested paging, which shadow nothing.",
)  # fmt: skip
_FAULTS = (e.MmuPageFault, e.PageFault, e.Walk, e.FastPageFault)
_BETWEEN = (e.VmEntry, e.Exit)


def origin_by_tracepoints(around: Around) -> Origin:
    """The row of the event in the middle, as far as tracepoints tell."""
    event: AnyEvent = around.event
    if isinstance(event, e.PrepareZapPage) and not event.role & _INVALID:
        return STORED if isinstance(around.last(e.EmulateInsn, *_FAULTS, *_BETWEEN), e.EmulateInsn) else ZAP
    if isinstance(event, e.SyncPage):
        return SYNC
    if isinstance(event, e.SetSpte):
        return _set(around)
    if isinstance(event, e.Walk) and around.last(e.MmuPageFault, e.PageFault, e.EmulateInsn, *_BETWEEN) is None:
        return WALK
    if isinstance(event, e.GetPage) and event.created and isinstance(around.last(*_FAULTS, *_BETWEEN), e.VmEntry | e.Exit):
        return ROOT
    return origin_of(around)


def _set(around: Around) -> Origin:
    before = around.before[-1] if around.before else None
    if isinstance(before, e.TdpMmuSpteChanged) and before.gfn == around.event.gfn:
        return TDP
    if around.last(*_FAULTS, e.InvalidateGva) is not None:
        return origin_of(around)
    return SET if around.last(e.SpteRequested) is None else SET_OF_FAULT
