# SPDX-License-Identifier: GPL-2.0-only
"""What later kernels call the functions that the table of origins names by Linux 6.1.

Of each kernel those that 6.1's module has a symbol of and its own has not. What compilers put into their callers has none, and keeps
its name here.
"""

from __future__ import annotations

import msgspec

from shadowmmu.engine.face.kernels import KERNELS
from shadowmmu.trace.origins.origin import Origin

RENAMED: dict[str, dict[str, str]] = {
    "6.12": {
        "FNAME(invlpg)": "__kvm_mmu_invalidate_addr",
        "kvm_inject_emulated_page_fault": "__kvm_inject_emulated_page_fault",
        "kvm_mmu_pte_write": "kvm_mmu_track_write",
        "kvm_mmu_unprotect_page": "__kvm_mmu_unprotect_gfn_and_retry",
        "__handle_changed_spte": "handle_changed_spte",
    },
    "7.3": {
        "__handle_changed_spte": "__handle_changed_spte",
        "kvm_mmu_zap_collapsible_sptes": "kvm_mmu_recover_huge_pages",
    },
}
"""By the kernel since which it is so."""


def function_on(function: str, kernel: str) -> str:
    """The name of a function of 6.1's on a kernel."""
    named = function
    for name in KERNELS:
        named = RENAMED.get(name, {}).get(function, named)
        if name == kernel:
            break
    return named


def on_kernel(origin: Origin, kernel: str) -> Origin:
    """The row with the name that this kernel has for its function."""
    return msgspec.structs.replace(origin, kernel=function_on(origin.kernel, kernel))
