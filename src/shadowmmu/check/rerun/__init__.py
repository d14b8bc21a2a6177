"""Rerun: the guests of captures run as code on the machine, and what the MMU does there is compared with the kernel.

A replay gives the engine the recorded faults; here the CPU raises them. `vmm` is the user space that the guest talks to,
`processor` the vCPU with its records, `stream` makes both sides comparable, `differences` names what the two CPUs do
differently, `driver` runs and compares.
"""
