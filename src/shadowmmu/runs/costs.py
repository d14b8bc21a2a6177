# SPDX-License-Identifier: GPL-2.0-only
"""What a guest costs its host, the dearest first, and the rule that each cost comes from."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from shadowmmu.machine.result import GuestResult
from shadowmmu.runs.guest_run import RunReport


class Cost(msgspec.Struct, frozen=True):
    """`name` as it is told, the kernel's `function`, and the `rule`; `count`: from the result, or by a counter's or event's name."""

    name: str
    count: str | Callable[[GuestResult], int]
    function: str
    rule: str


COSTS = (
    Cost(
        "instructions emulated", lambda result: result.emulated, "mmu_try_to_unsync_pages",
        "a store to a table that is shadowed, in sync and so write-protected is done by the emulator",
    ),
    Cost(
        "page fault exits", lambda result: result.exits.get("page fault", 0), "kvm_mmu_page_fault",
        "the CPU met an entry that is not there, or does not allow the access",
    ),
    Cost(
        "nested page fault exits", lambda result: result.exits.get("nested page fault", 0), "kvm_mmu_page_fault",
        "the same on nested tables, of L1 or of its L2",
    ),
    Cost("exits", lambda result: result.total_exits, "vcpu_enter_guest", "each of them leaves the guest and enters it again"),
    Cost("TLB flushes", "tlb_flush", "kvm_vcpu_flush_tlb_current", "of one vCPU"),
    Cost("remote TLB flushes", "remote_tlb_flush", "kvm_flush_remote_tlbs", "of all vCPUs: an entry lost a right that a TLB may hold"),
    Cost("pages made", "mmu_cache_miss", "kvm_mmu_alloc_shadow_page", "no page of this gfn and role was there"),
    Cost("tables gone unsync", "kvm_mmu_unsync_page", "kvm_unsync_page", "the guest may write a level-1 table till it flushes"),
    Cost("pages synced", "kvm_mmu_sync_page", "kvm_sync_page", "an unsync page is made to agree with its table when the guest flushes"),
    Cost("pages zapped", "mmu_shadow_zapped", "__kvm_mmu_prepare_zap_page", "stores to a table, its parent's end, recycling, slots"),
    Cost("faults with nothing to fix", "pf_spurious", "is_access_allowed", "the entry allowed the access already, or was only linked"),
    Cost("faults fixed", "pf_fixed", "FNAME(fetch)", "an entry was made for the fault"),
    Cost("walks of guest tables", "kvm_mmu_pagetable_walk", "FNAME(walk_addr_generic)", "asked for by a fault, or by the emulator"),
    Cost("entries set", "kvm_mmu_set_spte", "mmu_set_spte", "last-level entries: of faults, prefetched, and of INVLPG"),
    Cost("stores to shadowed tables", "mmu_pte_write", "kvm_mmu_pte_write", "the shadows of the entry that was stored follow"),
    Cost("roots loaded", "mmu_load", "kvm_mmu_load", "no cached root fits, or the one there is obsolete"),
    Cost("host memory touched", lambda result: result.host_memory, "", "guest pages and shadow tables, in bytes"),
)  # fmt: skip
BY_NAME = {cost.name: cost for cost in COSTS}
ORDER = {cost.name: number for number, cost in enumerate(COSTS)}


def costs_of(report: RunReport, events: dict[str, int]) -> dict[str, int]:
    """By the names of COSTS; what only a result tells is left out of a run that has none."""
    told: dict[str, int] = {}
    for cost in COSTS:
        if isinstance(cost.count, str):
            told[cost.name] = report.counters.get(cost.count, events.get(cost.count, 0))
        elif report.result is not None:
            told[cost.name] = cost.count(report.result)
    return told
