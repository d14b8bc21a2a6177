"""Rerun: the guests of captures run as code on the machine, and what the MMU does there is compared with the kernel.

A replay gives the engine the recorded faults; here the CPU raises them. `vmm` is the user space that the guest talks to,
`processor` the vCPU with its records, `kernel_stream` makes both sides comparable, `captured_cpu` does what the
captured CPU does otherwise, `driver` runs and compares.
"""
