# SPDX-License-Identifier: GPL-2.0-only
"""What a replay does not compare, each with its reason."""

from __future__ import annotations

from shadowmmu.trace import events as e
from shadowmmu.trace.events import AnyEvent
from shadowmmu.trace.forms import ALL_ROOTS, Form

INPUTS: dict[type[AnyEvent], str] = {
    e.Exit: "what the CPU did is given to the engine, not asked of it",
    e.VmEntry: "an input, at which the engine is asked for a root",
    e.PageFault: "an input; its address and error code are those of mmu_page_fault",
    e.EmulateInsn: "the emulator is driven from the trace; its use of the MMU is compared",
    e.Msr: "an input; only a write of EFER concerns the MMU",
    e.Cr: "an input; the write itself is taken from the emulated instruction",
    e.MatchMmio: "a cache of the emulator's",
    e.Mmio: "devices belong to user space",
    e.NestedVmenter: "tells when L1 executed VMRUN; what follows is compared",
    e.NestedVmenterFailed: "compared with the engine's answer to VMRUN or #VMEXIT",
    e.NestedVmexit: "repeats kvm_exit",
    e.NestedVmexitInject: "tells when L2 was left; what follows is compared",
    e.UnprotectGfn: "an input, at which the engine is asked to; what it zaps then is compared",
    e.Other: "tracepoints of other parts of KVM",
}
"""Kinds that drive the replay or are none of the MMU's."""

NOISE: dict[type[AnyEvent], str] = {
    e.GuestTlbFlush: "counts flush requests, which host interrupts multiply; flushes show in what the hardware may use",
    e.MmuUnload: "only seen when the VM is closed, which is not replayed",
    e.TdpMmuSpteChanged: "the TDP MMU's own entries; it is another system than the shadow MMU",
    e.InjectPageFault: "ours only; the kernel's kvm_inj_exception is compared with it",
    e.SpecialAlloc: "ours only",
    e.SpecialFree: "ours only",
}
"""Kinds that are left out on both sides."""

FIELDS = {
    "vcpu": "most events of the kernel do not tell it; vCPUs take turns, and the markers say whose it is",
    "spt": "where a page's table lies, which the kernel's tracepoints do not tell",
}
"""Fields that are not compared, of whatever kind."""

TDP_FIELDS: dict[type[AnyEvent], tuple[str, str]] = {
    e.ZapAllFast: ("mmu_used_pages", "it counts the TDP MMU's pages too"),
    e.LoadPgd: ("root", "while L1 runs the root is the TDP MMU's"),
}
"""Of these kinds one field is not compared where the kernel has a TDP MMU."""

RESTARTED = -11
"""kvm_mmu_split_huge_page with -EAGAIN: the kernel let the lock go for memory or another task, did nothing, and tried again."""


def is_no_deed(event: AnyEvent, form: Form) -> bool:
    """Of a kind that is compared, but nothing that the MMU did: ALL_ROOTS, RESTARTED, and what the kernel has no probe for."""
    if isinstance(event, e.FreeRoots):
        return event.roots in (ALL_ROOTS, form.all_roots)
    if isinstance(event, e.UnprotectPage):
        return form.masks_roots
    if isinstance(event, e.ZapOldest):
        return form.returns_code
    return isinstance(event, e.SplitHugePage) and event.errno == RESTARTED


COUNTERS = (
    "pf_taken", "pf_fixed", "pf_emulate", "pf_spurious", "pf_fast", "pf_guest",
    "pf_mmio_spte_created", "invlpg", "mmu_cache_miss", "mmu_shadow_zapped", "mmu_pte_write",
    "mmu_pde_zapped", "mmu_flooded", "mmu_recycled", "mmu_unsync", "pages_4k", "pages_2m",
    "pages_1g", "nx_lpage_splits", "remote_tlb_flush_requests",
)  # fmt: skip
"""The counters that are compared; the others count what the host's CPU does, exits, interrupts and time."""

CPU_BITS = 0x60
"""Accessed and dirty: in shadow entries the CPU sets them on its own, so a dump may have more of them."""
PAE_ROOT_BITS = 0x20
"""QEMU's TCG sets bit 5 in the PDPTEs of a PAE root, which no real CPU does."""
TDP_COUNTERS = frozenset({
    "pf_taken", "pf_fixed", "pf_spurious", "pf_fast", "pf_emulate", "pf_mmio_spte_created", "pages_4k", "pages_2m",
    "pages_1g", "nx_lpage_splits", "mmu_cache_miss", "mmu_shadow_zapped", "mmu_recycled", "remote_tlb_flush_requests",
})  # fmt: skip
"""Counters that also count the TDP MMU's work, where there is one."""
YIELDING_COUNTERS = frozenset({"remote_tlb_flush_requests"})
"""While many entries of a memslot are zapped the kernel may let another task in, and flushes before: the host's timing. Where it does
that it may have more of these than the engine."""

LAZY_BITS = 0x402
"""Writable, and writable as far as the MMU is concerned. With other roots a dump may differ in them: a table that no
root links is not synced, so it stays writable."""
MARK_BITS = 2 | 0x7F8 | 0x7FF << 52
"""In a rerun, as these are, in a mark of MMIO; and the generation it was made in (mmu/spte.h, MMIO_SPTE_GEN_LOW and _HIGH)."""
