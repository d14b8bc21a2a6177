# SPDX-License-Identifier: GPL-2.0-only
"""The tables at the top of a root: those that shadow no table of the guest, and the first that does."""

from __future__ import annotations

import struct

from shadowmmu import MmuView, Vcpu, Vm
from shadowmmu.look.picture import BARE, MODES, PASSTHROUGH, SPECIAL, table_head


def top_chain(vm: Vm, mmu: MmuView) -> str:
    """From the root to the first table that stands for one of the guest's, or is direct: "★ l4 → ★ l3 → l2".

    It ends early where no table hangs below yet; all below the last are ordinary. "" without a root.
    """
    names: list[str] = []
    hpa, level = mmu.root, mmu.levels
    while hpa is not None:
        table = table_head(vm, mmu, hpa & ~0xFFF, level)
        names.append(f"★ l{level}" if table.kind == SPECIAL else f"l{level}{f' {table.kind}' if table.kind != 'shadow' else ''}")
        below = next((entry for entry in struct.unpack("<4Q", vm.read_host(table.hpa, 32)) if entry & 1), 0)
        hpa = below & 0x000FFFFFFFFFF000 if below and table.kind in (SPECIAL, BARE, PASSTHROUGH) else None
        level -= 1
    return " → ".join(names)


def whose_root(vcpu: Vcpu, mmu: MmuView) -> str:
    """Whose root the MMU in use has, in words that are the same on every root design."""
    if mmu.name == "guest":
        return f"L2 on {MODES[mmu.guest_levels]} nested tables"
    if vcpu.vm.tdp:
        return "L2 without nested paging" if vcpu.guest_mode else "direct tables"
    return f"{MODES[mmu.guest_levels]} {'L2 without nested paging' if vcpu.guest_mode else 'guest'}"
