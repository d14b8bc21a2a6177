# SPDX-License-Identifier: GPL-2.0-only
"""What other kernels call the functions that the table of origins names by Linux 6.1.

Of each later kernel those that 6.1's module has a symbol of and its own has not, and one that no compiler leaves a symbol of. What
compilers put into their callers has none, and keeps its name here.
"""

from __future__ import annotations

import msgspec

from shadowmmu.trace.layouts import version_of
from shadowmmu.trace.origins.origin import Origin

Version = tuple[int, int]
LATER: dict[Version, dict[str, str]] = {
    (6, 3): {"__direct_map": "direct_map"},
    (6, 12): {
        "FNAME(invlpg)": "__kvm_mmu_invalidate_addr",
        "kvm_inject_emulated_page_fault": "__kvm_inject_emulated_page_fault",
        "kvm_mmu_pte_write": "kvm_mmu_track_write",
        "kvm_mmu_unprotect_page": "__kvm_mmu_unprotect_gfn_and_retry",
        "__handle_changed_spte": "handle_changed_spte",
    },
    (7, 1): {"kvm_mmu_zap_collapsible_sptes": "kvm_mmu_recover_huge_pages"},
    (7, 3): {"__handle_changed_spte": "__handle_changed_spte"},
}
"""By the kernel since which it is so, as far as it is known; oldest first."""
EARLIER: dict[Version, dict[str, str]] = {
    (6, 0): dict.fromkeys(("kvm_mmu_alloc_shadow_page", "kvm_mmu_find_shadow_page", "kvm_mmu_get_child_sp"), "kvm_mmu_get_page"),
    (5, 15): {"mmu_try_to_unsync_pages": "mmu_need_write_protect"},
    (5, 6): {"kvm_mmu_hugepage_adjust": "transparent_hugepage_adjust"},
    (5, 4): {"kvm_mmu_zap_all_fast": "kvm_mmu_invalidate_zap_all_pages"},
}
"""By the kernel before which it was so."""


def function_at(function: str, version: Version) -> str:
    """The name of a function of 6.1's in a kernel of this version."""
    named = function
    for since, names in LATER.items():
        if since <= version:
            named = names.get(function, named)
    for until, names in EARLIER.items():
        if version < until:
            named = names.get(function, named)
    return named


def function_of_vendor(function: str, vmx: bool, ept: bool, npf: bool) -> str:
    """The name of SVM's function on VMX, or with nested paging: who takes the exit, and who tells of its page fault."""
    if function == "svm_handle_exit":
        return "vmx_handle_exit" if vmx else function
    if function == "pf_interception":
        return "handle_ept_violation" if ept else "handle_exception_nmi" if vmx else "npf_interception" if npf else function
    return function


def function_on(function: str, kernel: str) -> str:
    """The same on one of the kernels here."""
    return function_at(function, version_of(kernel))


def on_kernel(origin: Origin, kernel: str) -> Origin:
    """The row with the name that this kernel has for its function."""
    return msgspec.structs.replace(origin, kernel=function_on(origin.kernel, kernel))
