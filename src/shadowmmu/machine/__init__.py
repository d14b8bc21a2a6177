# SPDX-License-Identifier: GPL-2.0-only
"""A virtual machine around the engine: CPU, exits, event delivery, instruction emulation, nested SVM, loader, a small PC.

Each room imports only from those above it:

* `seam`       what a CPU back end gives (`Cpu`), and the registers and exits that pass through it; `intercepts`,
               `real_controls`: what it is told to run with
* `cpu`        the default back end: Unicorn as an AMD-V processor, the guest always under VMRUN; `raw_state` is its own state, for
               the hook below
* `memory`     guest memory as an instruction reaches it, and as the CPU itself does while it delivers an event; `fault_cause`
               says whose fault a nested page fault is
* `emulator`   instructions that touch shadowed tables or memory that is not there
* `vcpu`       `processor`, one vCPU's state and what handlers do with it: MSRs, CPUID, the event that is pending, the L2
               that runs; `deliver` takes an event through the guest's own IDT, in every mode; a `witness` is told of all;
               `quick_hook` serves frequent exits in the CPU's hook, without Python
* `svm`        VMRUN and its kin, for a guest that is a hypervisor (L1): `reflect` says which exits of L2 are L1's. The way to L2
               and back is `vcpu.svm_switch`, for the loop and for the hook
* `exits`      the handlers; `page_boundary` corrects where the CPU stopped
* `loop`       enter the guest, run it, handle the exit, deliver what comes of it; `outside` takes what the local APIC has
* `devices`    one a file: virtual time in `clock`, `local_apic` and its timer, and the rest of a small PC, wired in `pc`
* `loader`, `machine`   guests, and the whole

A guest asks for AMD-V by the feature ``svm``. With ``npt`` it is offered nested paging, and runs on direct tables
itself (KVM's ``npt=1``); without, L1 and L2 run on shadow paging (``npt=0``).
"""
