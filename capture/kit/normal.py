# SPDX-License-Identifier: GPL-2.0-only
"""Events as lines to be read and compared: no times, and names in place of host addresses.

A host frame that holds guest memory is `g` and the guest's frame number; shadow pages and roots are S0, S1.. in the order
in which they are first seen (a page that is freed and used again keeps its number). Two captures of one guest are equal
in this form, but for interrupts of the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

FRAME_BITS = 0x000F_FFFF_FFFF_F000
LOW_BITS = 0xFFF0_0000_0000_0FFF
CURRENT_ROOT = (1 << 64) - 1
ALL_ROOTS = 0xF
NO_SLOT = 1 << 63
"""Bit of a kvm_pfn_t: there is no memslot (KVM_PFN_NOSLOT)."""
ERROR_PFN = 1 << 52
Event = dict[str, Any]
UNNAMED = frozenset({"ev", "sys", "ts", "vcpu_id", "isa", "intr_info"})
FLAGS = (
    "direct", "invalid", "efer_nx", "cr0_wp", "smep_andnot_wp", "smap_andnot_wp", "ad_disabled", "guest_mode", "passthrough",
    "is_mirror", "cr4_smep", "smm",
)  # fmt: skip
"""Of any kernel; each has some of them."""
NOTIFIER = frozenset({"kvm_unmap_hva_range", "kvm_set_spte_hva"})
"""Their fields are addresses of the VMM."""
ACCESS = {3: ((1, "w"), (2, "u"), (0, "x")), 4: ((0, "r"), (1, "w"), (2, "u"), (3, "x"))}
"""The letters of a role's access, where it has three bits and where it has four."""


class Normaliser:
    """One capture's names for frames and shadow pages."""

    def __init__(self, guest_frames: dict[int, int]) -> None:
        self.guest_frames = guest_frames
        """Host frame -> guest frame."""
        self.shadow_pages: dict[int, int] = {}
        self.other_frames: dict[int, int] = {}

    def lines(self, events: Iterable[Event]) -> list[str]:
        return [self.line(event) for event in events]

    def line(self, event: Event) -> str:
        name = event["ev"]
        if name == "print":
            return f"## {event['text']}"
        if "role" in event:
            return _shadow_page_line(event)
        if name in NOTIFIER:
            return f"{name} "
        fields = {key: value for key, value in event.items() if key not in UNNAMED}
        getattr(self, f"_{name}", lambda fields: None)(fields)
        return f"{name} " + " ".join(f"{key}={value if isinstance(value, str) else format(value, 'x')}" for key, value in fields.items())

    def shadow_page(self, address: int) -> str:
        return f"S{self.shadow_pages.setdefault(address >> 12, len(self.shadow_pages))}"

    def spte(self, value: int) -> str:
        frame = (value & FRAME_BITS) >> 12
        known = self.guest_frames.get(frame)
        return (self.shadow_page(frame << 12) if known is None else f"g{known:x}") + f"|{value & LOW_BITS:x}"

    def frame(self, pfn: int) -> str:
        """A kvm_pfn_t: a guest's frame, one that it has lost meanwhile, or no frame."""
        if pfn in self.guest_frames:
            return f"g{self.guest_frames[pfn]:x}"
        if pfn < ERROR_PFN:
            return f"h{self.other_frames.setdefault(pfn, len(self.other_frames))}"
        return "noslot" if pfn & NO_SLOT else f"err{pfn:x}"

    # --- events with addresses of the host; each method changes the fields of the event that it is named after

    def _kvm_mmu_set_spte(self, fields: Event) -> None:
        sptep = fields["sptep"]
        named = {"gfn": fields["gfn"], "spte": self.spte(fields["spte"]), "level": fields["level"]}
        fields.clear()
        fields.update(named, at=f"{self.shadow_page(sptep)}[{(sptep & 0xFFF) >> 3:03x}]")

    def _kvm_mmu_spte_requested(self, fields: Event) -> None:
        named = {"gfn": fields["gfn"], "pfn": self.frame(fields["pfn"]), "level": fields["level"]}
        fields.clear()
        fields.update(named)

    def _kvm_tdp_mmu_spte_changed(self, fields: Event) -> None:
        for key in ("old_spte", "new_spte"):
            fields[key] = self.spte(fields[key]) if fields[key] else 0

    def _fast_page_fault(self, fields: Event) -> None:
        del fields["sptep"]
        fields.update(old_spte=self.spte(fields["old_spte"]), new_spte=self.spte(fields["new_spte"]))

    def _invalidate_gva(self, fields: Event) -> None:
        root = fields["root"]
        if root > ALL_ROOTS:  # before Linux 6.4 an address; since then a mask of the current root and the previous ones
            fields["root"] = "current" if root == CURRENT_ROOT else self.shadow_page(root)

    def _load_pgd(self, fields: Event) -> None:
        fields["root"] = self.shadow_page(fields["root"])

    def _mark_mmio_spte(self, fields: Event) -> None:
        del fields["sptep"]

    def _check_mmio_spte(self, fields: Event) -> None:
        fields.pop("sptep", None)


def _shadow_page_line(event: Event) -> str:
    """get_page, prepare_zap, sync, unsync: the whole role, of which the kernel's own print leaves half out."""
    role = event["role"]
    access = "".join(letter if role["access"] >> bit & 1 else "-" for bit, letter in ACCESS[4 if "cr4_smep" in role else 3])
    made = (" new" if event["created"] == 1 else " existing") if "created" in event else ""
    return (
        f"{event['ev']} gfn={event['gfn']:x} level={role['level']} gpte={4 if role['four_byte'] else 8} quad={role['quadrant']} "
        f"access={access} [{' '.join(flag for flag in FLAGS if role.get(flag))}] role={role['word']:x} gen={event['mmu_valid_gen']} "
        f"root_count={event['root_count']} {'unsync' if event['unsync'] else 'sync'}{made}"
    )
