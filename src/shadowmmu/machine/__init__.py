"""A virtual machine around the engine: CPU, exits, event delivery, instruction emulation, loader, few devices.

* `cpu`          the seam: what a CPU back end gives (`Cpu`), and the registers and exits that pass through it
* `unicorn_cpu`  the default back end: Unicorn as an AMD-V processor, the guest always under VMRUN
* `processor`    one vCPU: enter, run, handle the exit
* `exits`, `control_registers`, `msr`, `cpuid`   the handlers
* `deliver`      events through the guest's own IDT, in every mode
* `decode`, `emulate`   instructions that touch shadowed tables or memory that is not there
* `loader`, `devices`, `machine`   guests, ports, and the whole
"""
