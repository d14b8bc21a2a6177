# SPDX-License-Identifier: GPL-2.0-only
"""Origins of what no MMU tells: what the CPU, the emulator and the VMM did. The engine is given it, and emits none of it."""

from __future__ import annotations

from shadowmmu.trace import events as e
from shadowmmu.trace.origins.origin import case

CASES = (
    case(e.Exit, "", "", "svm_handle_exit", "The CPU left the guest."),
    case(e.VmEntry, "", "", "vcpu_enter_guest", "The CPU enters the guest: requests have been served, and there is a root."),
    case(e.PageFault, "", "", "pf_interception", "The CPU's address and error code, before the MMU sees them."),
    case(e.EmulateInsn, "", "", "x86_emulate_instruction", "The emulator begins an instruction."),
    case(e.InjException, "", "", "kvm_inject_exception", "The guest gets an exception; a #PF is one that a walk has found."),
    case(e.Msr, "", "", "kvm_emulate_wrmsr", "The guest read or wrote an MSR; told when it is over."),
    case(e.Cr, "", "", "cr_interception", "The guest read or wrote a control register without the emulator."),
    case(e.MatchMmio, "", "", "vcpu_mmio_gva_to_gpa", "The emulator remembers where the last fault found no memory."),
    case(e.Mmio, "", "", "vcpu_mmio_read", "An access that user space answers."),
    case(e.NestedVmenter, "", "", "enter_svm_guest_mode", "L1 executed VMRUN."),
    case(e.NestedVmenterFailed, "", "", "nested_svm_load_cr3", "The state that VMRUN or #VMEXIT was to load is illegal."),
    case(e.NestedVmexitInject, "", "", "nested_svm_vmexit", "L1 gets an exit of L2's."),
    case(e.NestedVmexit, "", "", "svm_handle_exit", "The CPU left L2."),
    case(e.UnprotectGfn, "", "", "__kvm_mmu_unprotect_gfn_and_retry", "A table that an access reaches is to be shadowed no longer."),
    case(e.Marker, "", "", "tracing_mark_write", "A line of the guest's or the VMM's."),
    case(e.Other, "", "", "", "A tracepoint of another part of KVM."),
)
"""Kinds that drive an MMU from outside."""
