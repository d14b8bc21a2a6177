"""A virtual machine around the engine: CPU, exits, event delivery, instruction emulation, nested SVM, loader, few devices.

* `cpu`          the seam: what a CPU back end gives (`Cpu`), and the registers and exits that pass through it
* `unicorn_cpu`  the default back end: Unicorn as an AMD-V processor, the guest always under VMRUN; `unicorn_host`,
                 `unicorn_layout`, and `page_boundary`, which corrects it
* `processor`    one vCPU: enter, run, handle the exit
* `exits`, `control_registers`, `msr`, `cpuid`, `intercepts`   the handlers, and what is intercepted
* `deliver`      events through the guest's own IDT, in every mode; `cpu_memory` is memory as the CPU reaches it then
* `decode`, `emulate`   instructions that touch shadowed tables or memory that is not there
* `svm`          VMRUN and its kin, for a guest that is a hypervisor (L1); `vmcb` and `vmcb_check` read what it asks for
* `nested`       L2: entry and #VMEXIT; `reflect` says which exits are L1's
* `guest_tables`, `fault_cause`   whose fault a nested page fault is: the final access, or a walk of the guest's tables
* `loader`, `devices`, `machine`   guests, ports, and the whole

A guest asks for AMD-V by the feature ``svm``. With ``npt`` it is offered nested paging, and runs on direct tables
itself (KVM's ``npt=1``); without, L1 and L2 run on shadow paging (``npt=0``).
"""
