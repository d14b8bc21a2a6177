# SPDX-License-Identifier: GPL-2.0-only
"""Origins of what is told of last-level entries: wanted, set, given back on the fast path, marks of MMIO."""

from __future__ import annotations

from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.origins.origin import Around, case

_SET = (e.SetSpte, e.MarkMmioSpte)
_BEGINNINGS = (e.SpteRequested, e.InvalidateGva, e.SyncRoots, e.MmuPageFault)
"""What leads to entries being set."""


def beginning(at: Around) -> AnyEvent | None:
    return at.last(*_BEGINNINGS)


def is_wanted(at: Around) -> bool:
    """The first entry set behind kvm_mmu_spte_requested is the one that was asked for."""
    return isinstance(at.last(*_BEGINNINGS, *_SET), e.SpteRequested)


def is_direct_fault(at: Around) -> bool:
    """The fault under way began without a walk of guest tables."""
    return isinstance(at.last(e.MmuPageFault, e.Walk), e.MmuPageFault)


CASES = (
    case(
        e.SpteRequested, "", "fetch.request_spte", "kvm_mmu_hugepage_adjust",
        "What the fault wants mapped: the largest size that guest, slot, host and shadowed tables in it allow, below the root's level.",
        decider="huge.choose_hugepage", ids="H10 I9",
    ),
    case(
        e.SetSpte, "INVLPG", "leaf.set_spte", "FNAME(invlpg)",
        "INVLPG clears an entry of an unsync page, and maps again what the guest's entry says by now.",
        decider="invlpg.zap_unsync_leaf", ids="I12", when=lambda at: isinstance(beginning(at), e.InvalidateGva),
    ),
    case(
        e.SetSpte, "of a direct fault", "leaf.set_spte", "__direct_map",
        "Without guest tables an address is mapped to its own frame, with all rights that the host has.",
        decider="fetch.direct_map", ids="I9", when=lambda at: is_wanted(at) and is_direct_fault(at),
    ),
    case(
        e.SetSpte, "of a fault", "leaf.set_spte", "FNAME(fetch)",
        "The faulting entry is made from the walk's rights: writable only if D is set or the access writes, and no table is there.",
        decider="make_spte.make_spte", ids="I8 I9", when=is_wanted,
    ),
    case(
        e.SetSpte, "prefetched by a direct fault", "leaf.set_spte", "direct_pte_prefetch",
        "Empty neighbours in the aligned group of eight are mapped in runs, if one slot holds them and the host has mapped them writable.",
        decider="prefetch.direct_pte_prefetch", ids="I9", when=is_direct_fault,
    ),
    case(
        e.SetSpte, "prefetched", "leaf.set_spte", "FNAME(pte_prefetch)",
        "The seven neighbours in the aligned group of eight are mapped too, if they are empty and nothing has to be waited for.",
        decider="prefetch.pte_prefetch", ids="I9",
    ),
    case(
        e.MarkMmioSpte, "of a fault", "mmio.mark_mmio_spte", "mmu_set_spte",
        "No memslot holds the frame: a mark with gfn, rights and memslot generation, so that the next access goes to the emulator.",
        decider="leaf.set_mmio", ids="I16", when=is_wanted,
    ),
    case(
        e.MarkMmioSpte, "synced", "mmio.mark_mmio_spte", "sync_mmio_spte",
        "Syncing renews a mark whose guest entry still means the same gfn, with the present generation.",
        decider="mmio.sync_mmio_spte", ids="I16",
    ),
    case(
        e.CheckMmioSpte, "", "mmio.check_mmio_spte", "check_mmio_spte",
        "A fault with the reserved bit met a mark: it counts only if it is of the present memslots; none does while they change.",
        ids="I16",
    ),
    case(
        e.HandleMmioPageFault, "", "mmio.handle_mmio_page_fault", "handle_mmio_page_fault",
        "A mark of the present generation: the access goes to the emulator without a walk.",
        ids="H11",
    ),
    case(
        e.FastPageFault, "the entry allows it already", "fast_fault.fast_page_fault", "is_access_allowed",
        "The entry permits the access: the fault was spurious.",
        decider="fast_fault.is_allowed", when=lambda at: bool(at.event.spurious),
    ),
    case(
        e.FastPageFault, "a right given back", "fast_fault.fast_page_fault", "fast_pf_fix_direct_spte",
        "Only dirty logging had taken W from an entry that is MMU-writable: it is given back without the lock, and the page is dirty.",
        decider="fast_fault.fix_spte", ids="I15", when=lambda at: bool(at.event.fixed),
    ),
    case(
        e.FastPageFault, "handed to the slow path", "fast_fault.fast_page_fault", "fast_page_fault",
        "There is no such entry, or it lacks more than dirty logging took.",
    ),
    case(
        e.SplitHugePage, "", "split.try_split_huge_page", "shadow_mmu_try_split_huge_page",
        "With a TDP MMU an L2's huge mappings are split when dirty logging begins, or when a log is cleared that began all dirty.",
    ),
    case(
        e.TdpMmuSpteChanged, "", "", "__handle_changed_spte",
        "The TDP MMU's entries; it is another system than the shadow MMU.",
    ),
)  # fmt: skip
