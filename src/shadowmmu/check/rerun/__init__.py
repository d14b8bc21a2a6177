# SPDX-License-Identifier: GPL-2.0-only
"""Rerun: the guests of captures run as code on the machine, and what the MMU does there is compared with the kernel.

A replay gives the engine the recorded faults; here the CPU raises them. `vmm` is the user space that the guest talks to,
`vcpu` the machine's vCPU with the parts of a rerun, `kvm_witness` makes events of its exits, `captured_cpu` names what the
two CPUs do differently, `kernel_stream` makes both sides comparable, `rerun` runs and compares.
"""
